import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.detection.weights.conversion import convert_ultralytics
from lightning_prune.detection.weights.read_weights import PREFIX, read_state_dict, read_weights
from lightning_prune.surgery.architecture import RECORD
from tests.detection.network.foreign_pickle import save_foreign
from tests.detection.network.layout import recipe_state, ultralytics_layout
from tests.files.hostile import hostile_files, little_memory

NAMES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def theirs():
    return recipe_state(ultralytics_layout("n", 3), 5, 1.0)


@pytest.fixture(scope="module")
def ours(theirs):
    return convert_ultralytics(theirs)


def assert_same(found, expected, tolerance=0.0):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def test_loads_the_coco_weights_strictly(shared):
    found = read_weights(shared / "data" / "yolov8n_coco" / "yolov8n_coco.safetensors")
    assert (found.size, found.num_classes, found.names) == ("n", 80, None)
    YOLOv8("n", 80).load_state_dict(found.state_dict)


def test_reads_a_file_of_ultralytics(tmp_path, theirs, ours):
    half = {k: v.half() if v.is_floating_point() else v for k, v in theirs.items()}
    path = save_foreign(
        tmp_path / "best.pt", {"model": half, "ema": None}, names=dict(enumerate(NAMES)),
        train_args={"imgsz": 320, "task": "detect"},
    )  # fmt: skip
    found = read_weights(path)
    assert (found.size, found.num_classes, found.names, found.image_size) == ("n", 3, NAMES, 320)
    assert_same(found.state_dict, ours, 1e-3)
    assert_same(read_state_dict(path), found.state_dict)


def test_takes_the_averaged_weights(tmp_path, theirs, ours):
    other = {k: torch.zeros_like(v) for k, v in theirs.items()}
    path = save_foreign(tmp_path / "last.pt", {"model": other, "ema": theirs})
    assert_same(read_weights(path).state_dict, ours)


@pytest.mark.parametrize(
    "kind", ["SegmentationModel", "PoseModel", "ClassificationModel", "OBBModel"]
)
def test_refuses_other_tasks_by_name(tmp_path, theirs, kind):
    path = save_foreign(tmp_path / "x.pt", {"model": theirs, "ema": None}, kind=kind)
    with pytest.raises(ValueError, match=f"holds a {kind}: only YOLOv8 detection"):
        read_weights(path)


def test_refuses_other_generations_by_name(tmp_path, theirs):
    moved = {k.replace("model.22.", "model.23."): v for k, v in theirs.items()}
    torch.save(moved, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="YOLO11"):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("whose", ["theirs", "ours", "module", "compiled"])
def test_reads_plain_state_dicts(tmp_path, theirs, ours, wrap, whose):
    module = {"network." + k: v for k, v in ours.items()}
    compiled = {"network._orig_mod." + k: v for k, v in ours.items()}
    states = {"theirs": theirs, "ours": ours, "module": module, "compiled": compiled}
    torch.save(wrap(states[whose]), tmp_path / "x.pt")
    assert_same(read_weights(tmp_path / "x.pt").state_dict, ours)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, None),
        ('["cat", "dog", "owl"]', NAMES),
        ('{"0": "cat", "2": "owl", "1": "dog"}', NAMES),
        ("{0: 'cat', 1: 'dog', 2: 'owl'}", NAMES),
        ("[1, true, 2.5]", ["1", "True", "2.5"]),
    ],
)
def test_reads_safetensors(tmp_path, theirs, ours, text, names):
    save_file(theirs, tmp_path / "x.safetensors", None if text is None else {"names": text})
    found = read_weights(tmp_path / "x.safetensors")
    assert_same(found.state_dict, ours)
    assert found.names == names


@pytest.mark.parametrize(
    "text",
    [
        *("{", "", "null", "7", '"cat"', "[]", "cat, dog"),
        *("[" * 200_000, "{" * 200_000, "9" * 100_000),
        *('["cat", "dog"]', '{"0": "cat", "1": "dog", "7": "owl"}'),
        *('["cat", "dog", ["owl"]]', '["cat", "dog", null]', f"[0, 1, {'9' * 30}]"),
    ],
)
def test_odd_names_are_left_out_with_a_warning(tmp_path, theirs, text):
    save_file(theirs, tmp_path / "x.safetensors", {"names": text})
    with pytest.warns(UserWarning, match="ignored"):
        assert read_weights(tmp_path / "x.safetensors").names is None


def test_names_that_do_not_fit_are_left_out(tmp_path, theirs):
    path = save_foreign(tmp_path / "x.pt", {"model": theirs}, names={0: "only"})
    with pytest.warns(UserWarning, match="names 1 classes but its head has 3"):
        assert read_weights(path).names is None


def test_damaged_files(tmp_path, theirs):
    save_file(theirs, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    for kept in (0, 5, 3000, len(data) - 10):
        (tmp_path / "x.safetensors").write_bytes(data[:kept])
        with pytest.raises(ValueError, match="damaged"):
            read_weights(tmp_path / "x.safetensors")
    torch.save(theirs, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_weights(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_weights(tmp_path / "absent.pt")


def test_contents_that_do_not_fit(tmp_path, theirs, ours):
    def reading(content, message):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / "x.pt")

    reading([1, 2], "holds a list")
    reading({"epoch": 3}, "neither a model nor a state dict")
    reading({k: v for k, v in ours.items() if "p4.down" not in k}, "is missing")
    reading({k: v for k, v in theirs.items() if not k.startswith("model.0.")}, "p1.conv.weight")
    reading({**ours, "backbone.p6.weight": torch.ones(1)}, "p6.weight is unknown")
    wrong = dict(ours)
    wrong["neck.down3.norm.bias"] = torch.zeros(9)
    reading(wrong, r"neck\.down3\.norm\.bias is \(9,\) instead of \(64,\)")
    wrong = dict(ours)
    wrong["neck.down3.norm.bias"] = torch.full((64,), float("nan"))
    reading(wrong, "NaN or infinity")
    wrong = dict(ours)
    wrong["backbone.p1.conv.weight"] = torch.zeros(17, 3, 3, 3)
    reading(wrong, r"no YOLOv8 of widths \(17, .*p1\.norm\.weight is \(16,\) instead of \(17,\)")
    wrong["backbone.p1.conv.weight"] = torch.zeros(4096, 3, 3, 3)
    reading(wrong, r"architecture\.widths=.*integers up to 2048")


def test_hostile_files(tmp_path, ours, theirs):
    for name, path, _ in hostile_files(tmp_path):
        with little_memory(), pytest.raises(ValueError, match=f"{name}.ckpt"):
            read_weights(path)
    assert not (tmp_path / "sprung").exists()
    # A view of everything for each name: copies are made only after the shapes were compared.
    whole = torch.zeros(10**7)
    shared = dict.fromkeys(ours, whole) | {f"x{n}": whole for n in range(100)}
    torch.save(shared, tmp_path / "shared.pt")
    with little_memory(), pytest.raises(ValueError, match=r"channels in p1|no YOLOv8"):
        read_weights(tmp_path / "shared.pt")
    for state in ((3, 4), ([1], None), {"_modules": [1]}, {"_parameters": 7}):
        torch.save({"model": Stateful(state)}, tmp_path / "forged.pt")
        with pytest.raises(ValueError, match=r"forged\.pt: "):
            read_weights(tmp_path / "forged.pt")


class Stateful:
    """Pickles as an object of any state."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return object.__new__, (Stateful,), self.state


@pytest.mark.parametrize(
    ("name", "dense"),
    [
        ("head.classes.0.2.weight", [10**9, 64, 1, 1]),
        ("backbone.p1.conv.weight", [16, 10**9, 3, 3]),
        ("neck.down3.norm.bias", [9]),
        ("neck.down3.norm.bias", [64, 64]),
    ],
)
def test_a_record_of_a_network_that_no_cut_came_from(tmp_path, ours, name, dense):
    record = json.dumps({"version": 1, "dense": {PREFIX + name: dense}, "attributes": {}})
    state = {PREFIX + key: value for key, value in ours.items()}
    state[RECORD] = torch.tensor(list(record.encode()), dtype=torch.uint8)
    torch.save(state, tmp_path / "x.pt")
    with little_memory(), pytest.raises(ValueError, match=rf"{name} is .* the file was altered"):
        read_weights(tmp_path / "x.pt")


# --- what the modules in a file say ----------------------------------------------------------


def test_reads_what_the_modules_say(tmp_path, theirs):
    def change(model):
        sppf, neck, stage = (model._modules["model"]._modules[i] for i in ("9", "12", "4"))
        sppf._modules["cv1"].act = nn.Identity()
        sppf._modules["m"] = nn.MaxPool2d(7, 1, 3)
        sppf.n, sppf.add = 3, True
        neck._modules["m"]._modules["0"].add = True
        for bottleneck in stage._modules["m"]._modules.values():
            bottleneck.add = False
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps, layer.momentum = 1e-5, 0.1

    path = save_foreign(tmp_path / "x.pt", {"model": theirs}, act=nn.LeakyReLU(0.1), change=change)
    found = read_weights(path)
    assert found.stated
    assert found.architecture == {
        "activation": "leaky_relu(0.1)",
        "activations": {"backbone.p5.spp.conv1": "identity"},
        "shortcuts": [
            "backbone.p2.csp",
            "backbone.p4.csp",
            "backbone.p5.csp",
            "neck.top_down4",
        ],
        "norm_eps": 1e-5,
        "norm_momentum": 0.1,
        "pool_kernel": 7,
        "pool_shortcut": True,
    }


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("x.onnx", "an ONNX file, exported for inference: .* start from the .pt"),
        ("x.engine", "a TensorRT engine"),
        ("x.yaml", "describes a network and holds no weights"),
    ],
)
def test_names_files_that_are_no_weights(tmp_path, file, message):
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / file)
    with pytest.raises(FileNotFoundError, match="a folder, pass a file in it"):
        read_weights(tmp_path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_names_torchscript(tmp_path):
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1))).save(str(tmp_path / "best.pt"))
    with pytest.raises(ValueError, match="a TorchScript file, exported for inference"):
        read_weights(tmp_path / "best.pt")


# --- plain state dicts -----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "0.", "net.detector.", "model.model.model."])
def test_finds_the_network_below_other_names(tmp_path, theirs, ours, place):
    state = {place + name: value for name, value in theirs.items()}
    torch.save(state, tmp_path / "theirs.pt")
    assert_same(read_weights(tmp_path / "theirs.pt").state_dict, ours)
    layers = {place + name.removeprefix("model."): value for name, value in theirs.items()}
    torch.save(layers, tmp_path / "layers.pt")
    assert_same(read_weights(tmp_path / "layers.pt").state_dict, ours)
    torch.save({place + name: v for name, v in ours.items()}, tmp_path / "ours.pt")
    assert_same(read_weights(tmp_path / "ours.pt").state_dict, ours)


def test_two_networks_in_one_file(tmp_path, ours):
    state = {place + name: v for name, v in ours.items() for place in ("a.", "b.")}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"2 networks in it, at a\., b\."):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_reads_every_precision(tmp_path, theirs, ours, dtype):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in theirs.items()}
    torch.save(state, tmp_path / "x.pt")
    assert_same(read_weights(tmp_path / "x.pt").state_dict, ours, 1e-2)


BUILT = {
    "activation": "relu",
    "class_width": 70,
    "pools": 2,
    "widths": [8, 16, 24, 32, 48],
    "depths": [1, 0, 2],
}


def test_a_state_dict_of_ours_says_what_is_not_as_published(tmp_path):
    state = YOLOv8("custom", 4, in_channels=2, architecture=BUILT).state_dict()
    torch.save(state, tmp_path / "x.pt")
    found = read_weights(tmp_path / "x.pt")
    assert (found.size, found.num_classes, found.in_channels) == ("custom", 4, 2)
    assert (found.architecture, found.stated) == (BUILT, True)
    YOLOv8("custom", 4, 2, architecture=found.architecture).load_state_dict(found.state_dict)
    del state["architecture"]
    torch.save(state, tmp_path / "x.pt")
    found = read_weights(tmp_path / "x.pt")
    shapes = {k: v for k, v in BUILT.items() if k != "activation"}
    assert (found.architecture, found.stated) == (shapes, False)
    state["architecture"] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: architecture in the state dict is unreadable"):
        read_weights(tmp_path / "x.pt")
