"""load_pruned_state_dict: dense plain modules that take the shapes of a pruned file."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.architecture import RECORD, track_architecture
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from tests.networks import EXAMPLE, NETWORKS, Depthwise, Residual, make, random_plan
from tests.test_loading import VECTORS, Graph


def cut(model, share=0.5):
    groups = trace_groups(model, EXAMPLE)
    cut_channels(model, groups, random_plan(groups, share=share))
    return model.eval()


def narrowed(layer_of, wide, narrow, x):
    """Load a narrow layer's state into a wide one and compare what they give."""
    torch.manual_seed(0)
    small, large = layer_of(narrow), layer_of(wide)
    for value in small.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    load_pruned_state_dict(large, small.state_dict())
    assert str(large) == str(small)
    torch.testing.assert_close(large.eval()(x), small.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", VECTORS)
def test_golden_files(golden_vectors, name):
    cases = json.loads((golden_vectors / "10_load_pruned.json").read_text())["cases"]
    case = next(case for case in cases if case["name"] == name)
    arrays = np.load(golden_vectors / "10_load_pruned.npz", allow_pickle=False)
    start = f"{name}|sd|"
    state = {k.removeprefix(start): torch.from_numpy(arrays[k]) for k in arrays if start in k}
    model = Graph(case["dense_spec"]["nodes"], case["dense_spec"]["output"])
    result = load_pruned_state_dict(model, state)
    assert result.missing_keys == case["reference_missing_keys"]
    assert result.unexpected_keys == case["reference_unexpected_keys"]
    y = model.eval()(torch.from_numpy(arrays[f"{name}|x"]))
    expected = torch.from_numpy(arrays[f"{name}|y_eval"])
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    assert shapes == case["shapes_after"]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("recorded", [False, True])
def test_networks_that_were_cut(network, recorded):
    pruned = make(network)
    if recorded:
        track_architecture(pruned)
    cut(pruned)
    model = make(network, seed=1)
    assert load_pruned_state_dict(model, pruned.state_dict()) == ([], [])
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model.eval()(x), pruned(x), rtol=0, atol=0)
    assert str(model) == str(pruned)
    assert (RECORD in model.state_dict()) is recorded


@pytest.mark.parametrize(
    ("layer_of", "shape"),
    [
        (lambda c: nn.Conv1d(3, c, 3), (2, 3, 6)),
        (lambda c: nn.Conv2d(c, 4, (3, 1)), (2, 4, 6, 6)),
        (lambda c: nn.Conv2d(c, 2 * c, 3, groups=2), (2, 4, 6, 6)),
        (lambda c: nn.Conv2d(c, c, 3, groups=c), (2, 4, 6, 6)),
        (lambda c: nn.Conv3d(2, c, 1), (2, 2, 3, 3, 3)),
        (lambda c: nn.ConvTranspose1d(3, c, 2), (2, 3, 5)),
        (lambda c: nn.ConvTranspose2d(c, 2 * c, 2, groups=2), (2, 4, 5, 5)),
        (lambda c: nn.ConvTranspose2d(c, c, 2, groups=c), (2, 4, 5, 5)),
        (lambda c: nn.ConvTranspose3d(c, 3, 2), (2, 4, 3, 3, 3)),
        (lambda c: nn.Linear(c, c + 1), (2, 4)),
        (lambda c: nn.BatchNorm1d(c), (2, 4)),
        (lambda c: nn.BatchNorm3d(c, affine=False), (2, 4, 3, 3, 3)),
        (lambda c: nn.GroupNorm(2, c), (2, 4, 3)),
        (lambda c: nn.LayerNorm(c), (2, 4)),
        (lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True), (2, 4, 3, 3)),
        (lambda c: nn.PReLU(c), (2, 4, 3)),
    ],
)
def test_layers(layer_of, shape):
    narrowed(layer_of, 8, 4, torch.randn(shape))


def test_parameters_of_the_users_own_modules_follow():
    class Scale(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.scale = nn.Parameter(torch.rand(width, 1))

        def forward(self, x):
            return x * self.scale

    narrowed(Scale, 8, 4, torch.randn(2, 4, 3))


def test_dtype_device_and_requires_grad_stay():
    pruned, model = cut(make(Residual)), make(Residual, seed=1).double()
    model.stem[0].weight.requires_grad_(False)
    load_pruned_state_dict(model, pruned.state_dict())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not model.stem[0].weight.requires_grad
    assert model.head.weight.requires_grad
    with torch.device("meta"):
        far = make(Residual)
    with pytest.warns(UserWarning, match="no-op"):
        load_pruned_state_dict(far, pruned.state_dict())
    assert {p.device.type for p in far.parameters()} == {"meta"}


def test_tied_parameters_stay_tied():
    def tied(width):
        net = nn.Sequential(nn.Linear(width, 6), nn.Linear(width, 6))
        net[1].weight = net[0].weight
        return net

    model, pruned = tied(8), tied(4)
    load_pruned_state_dict(model, pruned.state_dict())
    assert model[0].weight is model[1].weight
    assert torch.equal(model[0].weight, pruned[0].weight)
    state = pruned.state_dict() | {"1.weight": torch.zeros(6, 3)}
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are one parameter"):
        load_pruned_state_dict(tied(8), state)


def test_a_tracked_module_takes_files_without_a_record():
    pruned, model = cut(make(Depthwise)), track_architecture(make(Depthwise, seed=1))
    load_pruned_state_dict(model, pruned.state_dict())
    assert str(model) == str(pruned)
    track_architecture(make(Depthwise)).load_state_dict(model.state_dict())


def test_a_record_of_a_submodule_is_followed():
    pruned = cut(track_architecture(make(Depthwise)))
    outer = nn.Sequential(make(Depthwise, seed=1))
    load_pruned_state_dict(outer, {"0." + k: v for k, v in pruned.state_dict().items()})
    assert str(outer[0]) == str(pruned)
    assert "0." + RECORD in outer.state_dict()


def test_names_of_compiled_modules():
    pruned = cut(make(Residual))
    compiled = torch.compile(make(Residual, seed=1))
    load_pruned_state_dict(compiled, pruned.state_dict())
    assert compiled._orig_mod.head.in_features == pruned.head.in_features
    load_pruned_state_dict(make(Residual), compiled.state_dict())


def test_strictness_is_that_of_load_state_dict():
    state = dict(cut(make(Residual)).state_dict())
    state["extra"] = state.pop("head.bias")
    model = make(Residual)
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*head\.bias.*Unexpected key.*extra"):
        load_pruned_state_dict(model, state)
    result = load_pruned_state_dict(model, state, strict=False)
    assert result.missing_keys == ["head.bias"]
    assert result.unexpected_keys == ["extra"]


BAD = {
    "another rank": ("a1.0.weight", torch.zeros(3, 8, 3), "has 3 dimensions there and 4 here"),
    "empty": ("a1.0.weight", torch.zeros(0, 8, 3, 3), "is empty"),
    "absurd": ("a1.0.weight", torch.zeros(1).expand(10**12, 8, 3, 3), "wider there"),
    "kernel": ("a1.0.weight", torch.zeros(6, 8, 1, 1), r"kernel of \(1, 1\)"),
    "torn norm": ("a1.1.weight", torch.zeros(3), r"a1\.1\.bias is \(6,\) beside a weight of \(3,"),
    "torn linear": ("head.weight", torch.zeros(2, 12), r"head\.bias is \(4,\)"),
    "no tensor": ("head.weight", [1.0], "expected torch.Tensor"),
}


def test_what_no_cut_makes_is_an_error_and_changes_nothing():
    # The first tensors of the file fit, and would be copied before the bad one is reached.
    for name, value, message in BAD.values():
        model, state = make(Residual), dict(cut(make(Residual, seed=1)).state_dict())
        before = {k: v.clone() for k, v in model.state_dict().items()}
        text, parameters = str(model), list(model.parameters())
        full = make(Residual, seed=1).state_dict()
        state = (full if name.startswith(("a1", "head")) else state) | {name: value}
        with pytest.raises((ValueError, RuntimeError), match=message):
            load_pruned_state_dict(model, state)
        assert str(model) == text
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_failed_load_of_a_recorded_file_changes_nothing():
    state = cut(track_architecture(make(Residual))).state_dict()
    del state["head.bias"]
    model = make(Residual)
    before, text = {k: v.clone() for k, v in model.state_dict().items()}, str(model)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_pruned_state_dict(model, state)
    assert str(model) == text
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("wide", "narrow", "message"),
    [
        (nn.GroupNorm(4, 8), nn.GroupNorm(3, 6), "do not divide into its 4 groups"),
        (nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(6, 6, 1, groups=3), "6 channels do not divide"),
        (nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(4, 4, 1, groups=2), "is wider there"),
        (nn.RMSNorm(8), nn.RMSNorm(4), "RMSNorm, which is not supported"),
        (nn.Embedding(8, 4), nn.Embedding(8, 2), "Embedding, which is not supported"),
        (nn.Linear(4, 4), nn.Linear(4, 8), "build the model with the saved one's arguments"),
    ],
)
def test_what_shapes_cannot_tell(wide, narrow, message):
    with pytest.raises(ValueError, match=message):
        load_pruned_state_dict(wide, narrow.state_dict())


def test_what_is_no_state_dict():
    with pytest.raises(TypeError, match="is a list: pass what"):
        load_pruned_state_dict(make(Residual), [])
    checkpoint = {"state_dict": make(Residual).state_dict()}
    with pytest.raises(ValueError, match=r"pass checkpoint\['state_dict'\]"):
        load_pruned_state_dict(make(Residual), checkpoint)
    with pytest.raises(ValueError, match="1 is no name of a tensor"):
        load_pruned_state_dict(make(Residual), {1: torch.zeros(1)})


def test_names_that_collide_or_lead_nowhere():
    state = make(Residual).state_dict()
    with pytest.raises(ValueError, match=r"differ only by _orig_mod\."):
        load_pruned_state_dict(make(Residual), state | {"_orig_mod.head.bias": torch.zeros(4)})
    record = cut(track_architecture(make(Residual))).state_dict()[RECORD]
    with pytest.raises(ValueError, match=rf"attic\.{RECORD} .* no part of Residual"):
        load_pruned_state_dict(make(Residual), state | {f"attic.{RECORD}": record})
