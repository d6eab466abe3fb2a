import pytest
import torch
from torch import nn

from lightning_prune.detection.weights.module_tree import module_tensors
from lightning_prune.detection.weights.tree_architecture import tree_architecture
from lightning_prune.files.inert_pickle import Record
from tests.detection.network.foreign_pickle import Classes, build_tree
from tests.detection.network.layout import recipe_state, ultralytics_layout


@pytest.fixture(scope="module")
def state():
    return recipe_state(ultralytics_layout("n", 3), 5, 1.0)


def detector(state):
    return build_tree(state, Classes(), nn.SiLU())


def records(module, known=None):
    """Return the records that reading a pickle of the module gives."""
    known = {} if known is None else known
    if id(module) not in known:
        kind = type(module)
        name = f"{kind.__module__}.{kind.__name__}"
        record = known[id(module)] = type("Record", (Record,), {"path": name})()
        children = {name: records(child, known) for name, child in module._modules.items()}
        record.state = {**module.__dict__, "_modules": children}
    return known[id(module)]


def read(model):
    record = records(model)
    module_tensors(record)
    return tree_architecture(record)


def test_a_published_network_says_what_is_published(state):
    assert read(detector(state)) == {
        "activation": "silu",
        "activations": {},
        "norm_eps": 1e-3,
        "norm_momentum": 0.03,
        "shortcuts": [f"backbone.p{stage}.csp" for stage in (2, 3, 4, 5)],
        "pool_kernel": 5,
        "pool_shortcut": False,
    }


def layer_of(model, index):
    return model._modules["model"]._modules[str(index)]


def set_attributes(index, path="", **values):
    def change(model):
        module = layer_of(model, index)
        for name in path.split(".") if path else ():
            module = module._modules[name]
        module.__dict__.update(values)

    return change


def put(index, path, new):
    def change(model):
        *above, last = path.split(".")
        module = layer_of(model, index)
        for name in above:
            module = module._modules[name]
        module._modules[last] = new

    return change


def remove(index, path):
    def change(model):
        *above, last = path.split(".")
        module = layer_of(model, index)
        for name in above:
            module = module._modules[name]
        del module._modules[last]

    return change


def itself(model):
    layer_of(model, 2)._modules["again"] = layer_of(model, 2)


def twice(model):
    layer_of(model, 4)._modules["m"]._modules["1"] = layer_of(model, 4)._modules["m"]._modules["0"]


def another_norm(model):
    layer_of(model, 5)._modules["bn"].eps = 1e-5


def deep(model):
    below = model
    for _ in range(100):
        below._modules["x"] = nn.Sequential()
        below = below._modules["x"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_attributes(3, "conv", stride=(1, 1)), r"model\.3\.conv has stride=\(1, 1\)"),
        (set_attributes(3, "conv", padding=(0, 0)), r"model\.3\.conv has padding"),
        (set_attributes(3, "conv", dilation=(2, 2)), r"model\.3\.conv has dilation"),
        (set_attributes(3, "conv", padding_mode="reflect"), "padding_mode=reflect"),
        (set_attributes(3, "conv", kernel_size=(3, 1)), r"kernel of \(3, 1\)"),
        (set_attributes(3, "bn", track_running_stats=False), "track_running_stats=False"),
        (set_attributes(10, mode="bilinear"), "layer 10 has mode=bilinear"),
        (set_attributes(10, scale_factor=3.0), "scale_factor=3.0"),
        (set_attributes(11, d=2), "layer 11 has d=2"),
        (set_attributes(11, f=[-1, 5]), r"layer 11 reads from \[-1, 5\]"),
        (set_attributes(22, reg_max=8), "reg_max=8, in YOLOv8 16"),
        (set_attributes(22, stride=torch.tensor([4.0, 8.0, 16.0])), "strides of"),
        (set_attributes(9, "m", ceil_mode=True), "ceil_mode=True"),
        (set_attributes(9, "m", kernel_size=4), "only odd squares"),
        (put(9, "m", nn.AvgPool2d(5, 1, 2)), "AvgPool2d, in YOLOv8 a MaxPool2d"),
        (put(3, "act", nn.PReLU()), "model.3: the activation .*PReLU .*learned numbers"),
        (put(3, "act", nn.Softmax2d()), "Softmax2d is not read"),
        (put(3, "bn", nn.GroupNorm(1, 64)), "bn is a GroupNorm"),
        (put(3, "bn", nn.Identity()), "start from the file before fusing"),
        (remove(3, "bn"), "start from the file before fusing"),
        (remove(3, "act"), "model.3 does not say its activation"),
        (put(22, "cv3.1.0", nn.Sequential(nn.Conv2d(1, 1, 1))), "depthwise, as in YOLO11"),
        (itself, "C2f is inside of itself"),
        (twice, r"m\.0\. and .*m\.1\. are one module with tensors"),
        (another_norm, "different eps and momentum"),
        (deep, "nested more than"),
        (put(22, "one2one_cv2", nn.Identity()), "head is end-to-end"),
    ],
)
def test_refuses_what_yolov8_does_not_have(state, change, message):
    model = detector(state)
    change(model)
    with pytest.raises(ValueError, match=message):
        read(model)


def test_work_does_not_grow_with_paths_through_shared_modules(state):
    model = below = detector(state)
    for _ in range(50):  # 2^50 paths
        one = nn.Sequential()
        below._modules["a"] = below._modules["b"] = one
        below = one
    assert module_tensors(records(model)).keys() == state.keys()
