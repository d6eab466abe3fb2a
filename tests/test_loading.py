"""load_pruned on classes that know nothing of pruning."""

import json
from typing import ClassVar

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.loading import load_pruned
from lightning_prune.surgery.architecture import EARLIER_RECORD, RECORD, track_architecture
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, NETWORKS, Depthwise, Residual, make, random_plan

VECTORS = [
    "chain_conv_bn", "chain_no_bn_bias", "residual", "concat", "depthwise", "prelu_convtranspose",
]  # fmt: skip


class Plain(pl.LightningModule):
    """A user's class: saves its hyper-parameters, tracks nothing."""

    def __init__(self, kind: int = 1, scale: float = 1.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = NETWORKS[kind]()
        self.scale = scale

    def forward(self, x):
        return self.scale * self.net(x)


class Forgetful(pl.LightningModule):
    """Saves no hyper-parameters though it needs one."""

    def __init__(self, width: int, bias: bool = True):
        super().__init__()
        self.net = nn.Linear(3, width, bias=bias)


class Configured(pl.LightningModule):
    """Takes one dictionary, which Lightning flattens in the checkpoint."""

    def __init__(self, config: dict):
        super().__init__()
        self.save_hyperparameters(config)
        self.net = nn.Linear(3, config["width"])


class Graph(pl.LightningModule):
    """The networks of the golden vectors, from their list of layers."""

    LAYERS: ClassVar = {
        "conv2d": lambda a: nn.Conv2d(
            a["in"], a["out"], a["k"], padding=a["padding"], bias=a["bias"],
            groups=a.get("groups", 1),
        ),
        "batchnorm2d": lambda a: nn.BatchNorm2d(a["ch"]),
        "relu": lambda a: nn.ReLU(),
        "prelu": lambda a: nn.PReLU(a["ch"]),
        "gap": lambda a: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "linear": lambda a: nn.Linear(a["in"], a["out"]),
        "convtranspose2d": lambda a: nn.ConvTranspose2d(
            a["in"], a["out"], a["k"], stride=a["stride"], bias=a["bias"]
        ),
        "add": lambda a: nn.Identity(),
        "cat": lambda a: nn.Identity(),
    }  # fmt: skip

    def __init__(self, nodes: list, output: str, tracked: bool = False):
        super().__init__()
        self.nodes, self.output = nodes, output
        for node in nodes:
            self.add_module(node["name"], self.LAYERS[node["op"]](node["args"]))
        if tracked:
            track_architecture(self)

    def forward(self, x):
        values = {"x": x}
        for node in self.nodes:
            inputs = [values[name] for name in node["in"]]
            if node["op"] == "add":
                inputs = [sum(inputs[1:], inputs[0])]
            elif node["op"] == "cat":
                inputs = [torch.cat(inputs, 1)]
            values[node["name"]] = getattr(self, node["name"])(*inputs)
        return values[self.output]


def save(path, state, hyper_parameters=None, **more):
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters or {}, **more}, path)
    return path


def cut(module, share=0.5):
    groups = trace_groups(module, EXAMPLE)
    cut_channels(module, groups, random_plan(groups, share=share))
    return module.eval()


@pytest.mark.parametrize("kind", range(len(NETWORKS)))
@pytest.mark.parametrize("recorded", [True, False])
def test_pruned_checkpoint_of_an_untracked_class(tmp_path, kind, recorded):
    torch.manual_seed(kind)
    module = Plain(kind, scale=2.0)
    if recorded:
        track_architecture(module)  # as a pruning callback does in setup
    cut(module)
    path = save(tmp_path / "a.ckpt", module.state_dict(), dict(module.hparams))
    assert (RECORD in module.state_dict()) is recorded
    loaded = load_pruned(Plain, path).eval()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(loaded(x), module(x), rtol=0, atol=0)
    assert str(loaded) == str(module)


def test_lightnings_own_loading_of_a_cut_file_says_what_to_use(tmp_path):
    module = cut(track_architecture(Plain(1)))
    path, version = tmp_path / "a.ckpt", {"pytorch-lightning_version": pl.__version__}
    torch.save({"state_dict": module.state_dict(), **version}, path)
    with pytest.raises(RuntimeError) as caught:
        Plain.load_from_checkpoint(path, weights_only=True)
    assert "use_lightning_prune_load_pruned" in str(caught.value).splitlines()[1]


@pytest.mark.parametrize("tracked", [True, False])
def test_files_with_the_earlier_name_of_the_record_load_too(tmp_path, tracked):
    module = cut(track_architecture(Plain(3)))
    state = module.state_dict()
    state[EARLIER_RECORD] = state.pop(RECORD)
    if tracked:
        loaded = track_architecture(Plain(3))
        loaded.load_state_dict(state)
    else:
        loaded = load_pruned(Plain, save(tmp_path / "a.ckpt", state, {"kind": 3}))
    assert str(loaded) == str(module)
    assert loaded.state_dict().keys() == module.state_dict().keys()


def test_what_was_loaded_saves_checkpoints_that_load_again(tmp_path):
    path = save(tmp_path / "a.ckpt", cut(Plain(3)).state_dict(), {"kind": 3})
    loaded = load_pruned(Plain, path)
    assert RECORD in loaded.state_dict()
    fresh = track_architecture(Plain(3))
    fresh.load_state_dict(loaded.state_dict(), strict=True)
    assert fresh.net.depthwise[0].groups == fresh.net.depthwise[0].in_channels == 8
    fresh.eval()(torch.randn(1, 3, 8, 8))


def test_dense_checkpoint_loads_as_by_lightning(tmp_path):
    module = Plain(1, scale=3.0)
    path = save(
        tmp_path / "a.ckpt", module.state_dict(), dict(module.hparams),
        **{"pytorch-lightning_version": pl.__version__},
    )  # fmt: skip
    ours, theirs = load_pruned(Plain, path), Plain.load_from_checkpoint(path)
    assert ours.scale == theirs.scale == 3.0
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("tracked", [False, True])
def test_golden_files_cut_elsewhere_load_by_their_shapes(golden_vectors, tmp_path, name, tracked):
    cases = json.loads((golden_vectors / "10_load_pruned.json").read_text())["cases"]
    spec = next(case for case in cases if case["name"] == name)["dense_spec"]
    arrays = np.load(golden_vectors / "10_load_pruned.npz", allow_pickle=False)
    state = {
        key.removeprefix(f"{name}|sd|"): torch.from_numpy(arrays[key])
        for key in arrays
        if key.startswith(f"{name}|sd|")
    }
    path = save(tmp_path / "a.ckpt", state)
    loaded = load_pruned(Graph, path, nodes=spec["nodes"], output=spec["output"], tracked=tracked)
    y = loaded.eval()(torch.from_numpy(arrays[f"{name}|x"]))
    expected = torch.from_numpy(arrays[f"{name}|y_eval"])
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_missing_arguments_are_named_and_can_be_passed(tmp_path):
    path = save(tmp_path / "a.ckpt", Forgetful(4).state_dict())
    with pytest.raises(ValueError, match="missing a required argument: 'width'") as caught:
        load_pruned(Forgetful, path)
    assert "save_hyperparameters()" in str(caught.value)
    assert load_pruned(Forgetful, path, width=4).net.out_features == 4
    with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
        load_pruned(Forgetful, path, width=4, depth=2)


def test_saved_arguments_that_the_class_no_longer_has_are_left_out(tmp_path):
    path = save(tmp_path / "a.ckpt", Forgetful(4).state_dict(), {"width": 4, "colour": "red"})
    assert load_pruned(Forgetful, path).net.out_features == 4


def test_an_error_of_the_constructor_itself_comes_through(tmp_path):
    path = save(tmp_path / "a.ckpt", Forgetful(4).state_dict(), {"width": "four"})
    with pytest.raises(TypeError, match=r"invalid combination of arguments|must be"):
        load_pruned(Forgetful, path)


def test_flattened_hyper_parameters_go_back_into_their_argument(tmp_path):
    module = Configured({"width": 4})
    path = save(
        tmp_path / "a.ckpt", module.state_dict(), dict(module.hparams), hparams_name="config"
    )
    assert load_pruned(Configured, path).net.out_features == 4


def test_strictness_is_that_of_load_state_dict(tmp_path):
    state = Plain(1).state_dict()
    del state["net.head.bias"]
    path = save(tmp_path / "a.ckpt", state, {"kind": 1})
    with pytest.raises(RuntimeError, match=r"Missing key.*net\.head\.bias"):
        load_pruned(Plain, path)
    assert isinstance(load_pruned(Plain, path, strict=False), Plain)


def test_another_architecture_is_an_error(tmp_path):
    path = save(
        tmp_path / "a.ckpt", {"net." + k: v for k, v in make(Residual).state_dict().items()}
    )
    with pytest.raises(RuntimeError, match="Missing key"):
        load_pruned(Plain, path, kind=NETWORKS.index(Depthwise))


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_pruned(Plain, tmp_path / "absent.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="no 'state_dict'"):
        load_pruned(Plain, tmp_path / "list.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint at all")
    with pytest.raises(ValueError, match="a text of 23 bytes"):
        load_pruned(Plain, tmp_path / "text.ckpt")


def test_nothing_pickled_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    save(tmp_path / "a.ckpt", {}, {"kind": Trap()})
    with pytest.raises(ValueError, match="pickled objects"):
        load_pruned(Plain, tmp_path / "a.ckpt")
    assert not (tmp_path / "sprung").exists()
