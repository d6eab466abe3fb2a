import copy
import io
import json
from functools import partial

import pytest
import torch
from safetensors.torch import load as st_load
from safetensors.torch import save as st_save
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.architecture import RECORD, read_record, resize_to, track_architecture
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from tests.networks import EXAMPLE, NETWORKS, Chain, Depthwise, Residual, make, random_plan


def tracked(network, seed=0):
    return track_architecture(make(network, seed))


def pruned(network, seed=0, share=0.5):
    net = tracked(network, seed)
    groups = trace_groups(net, EXAMPLE)
    cut_channels(net, groups, random_plan(groups, share=share))
    return net


@pytest.mark.parametrize("network", NETWORKS)
def test_pruned_state_loads_strictly_into_a_fresh_dense_module(network):
    net, fresh = pruned(network), tracked(network, seed=1)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fresh.eval()(x), net.eval()(x), rtol=0, atol=0)
    assert str(fresh) == str(net)


def test_dense_files_stay_ordinary():
    net = tracked(Residual)
    assert set(net.state_dict()) == set(make(Residual).state_dict())
    make(Residual).load_state_dict(net.state_dict(), strict=True)


def test_wider_file_into_narrower_live_model_and_reverse():
    narrow, narrower, dense = pruned(Residual), pruned(Residual, share=0.25), tracked(Residual, 2)
    narrower.load_state_dict(narrow.state_dict())
    assert str(narrower) == str(narrow)
    narrower.load_state_dict(dense.state_dict())
    assert str(narrower) == str(dense)
    assert RECORD not in narrower.state_dict()
    narrower.load_state_dict(narrow.state_dict())
    assert str(narrower) == str(narrow)


def test_depthwise_groups_and_changed_eps_travel():
    net = pruned(Depthwise)
    net.stem[1].eps = 0.25
    fresh = tracked(Depthwise)
    fresh.load_state_dict(net.state_dict())
    assert fresh.depthwise[0].groups == net.depthwise[0].groups == 8
    assert fresh.stem[1].eps == 0.25


def test_frozen_stays_frozen_and_dtype_follows_the_live_module():
    fresh = tracked(Chain).double()
    fresh.conv1.weight.requires_grad_(False)
    fresh.load_state_dict(pruned(Chain).state_dict())
    assert not fresh.conv1.weight.requires_grad
    assert fresh.conv2.weight.dtype == torch.float64


def test_averaged_copies_and_deep_copies_load_too():
    net = pruned(Residual)
    average, copied = AveragedModel(tracked(Residual)), copy.deepcopy(tracked(Residual))
    average.load_state_dict(AveragedModel(net).state_dict())
    copied.load_state_dict(net.state_dict())
    assert str(average.module) == str(copied) == str(net)


def test_nested_and_tracked_twice():
    outer = nn.Sequential(track_architecture(tracked(Residual)))
    outer.load_state_dict(nn.Sequential(pruned(Residual)).state_dict())
    assert outer[0].a1[0].out_channels == 3


def test_safetensors_and_cpu_round_trip():
    state = {key: value.cpu() for key, value in pruned(Residual).state_dict().items()}
    fresh = tracked(Residual)
    fresh.load_state_dict(st_load(st_save(state)))
    assert fresh.a1[0].out_channels == 3


def test_other_architectures_keep_the_strict_error():
    fresh = tracked(Chain)
    fresh_head = nn.Linear(10, 7)
    other = make(Chain)
    other.head = fresh_head
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.weight"):
        fresh.load_state_dict(other.state_dict())
    wide = make(Chain)
    wide.conv1, wide.act, wide.conv2 = (
        nn.Conv2d(3, 16, 3, padding=1),
        nn.PReLU(16),
        nn.Conv2d(16, 12, 3, 2, 1),
    )
    wide = track_architecture(wide)
    groups = trace_groups(wide, EXAMPLE)
    cut_channels(wide, groups, random_plan(groups))
    with pytest.raises(RuntimeError, match="build the model with the arguments of the saved one"):
        fresh.load_state_dict(wide.state_dict())
    assert str(fresh) == str(make(Chain))


@pytest.mark.parametrize(
    "record",
    [
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(3),
        torch.tensor(list(b'{"version":9}'), dtype=torch.uint8),
        torch.tensor([0], dtype=torch.uint8).expand(10**12),
        torch.full((10**6,), ord("["), dtype=torch.uint8),
    ],
)
def test_an_altered_record_is_one_clear_error(record):
    with pytest.raises(ValueError, match="unreadable"):
        read_record({RECORD: record})


def test_resize_reports_what_changed():
    net = make(Chain)
    assert resize_to(net, {"conv1.weight": torch.zeros(4, 3, 3, 3), "nothing": torch.zeros(1)}) == [
        "conv1.weight"
    ]
    assert net.conv1.out_channels == 4


def encoded(dense=None, attributes=None, **more):
    text = json.dumps({"version": 1, "dense": dense or {}, "attributes": attributes or {}, **more})
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    "record",
    [
        encoded({"w": "wide"}), encoded({"w": [1, -1]}), encoded({"w": [True]}),
        encoded({"w": [1.5]}), encoded({"w": [None]}), encoded(dense=[1]), encoded({"w": 3}),
        encoded(attributes={"stem": {"forward": 1}}), encoded(attributes={"stem": {"training": 1}}),
        encoded(attributes={"stem": {"groups": 0}}), encoded(attributes={"stem": {"groups": True}}),
        encoded(attributes={"stem": {"groups": 2.0}}), encoded(attributes={"stem": {"eps": "x"}}),
        encoded(attributes={"stem": {"eps": -1}}), encoded(attributes={"stem": {"eps": 1e300}}),
        encoded(attributes={"stem": {"eps": float("nan")}}), encoded(attributes={"stem": [1]}),
        encoded(attributes=[1]), encoded(version="1"),
    ],
)  # fmt: skip
def test_a_record_of_anything_but_shapes_and_known_attributes_is_refused(record):
    with pytest.raises(ValueError, match=rf"{RECORD} .* is unreadable .*was altered"):
        read_record({RECORD: record})


def narrow_file(**changes):
    """A cut Depthwise as its state dict; ``changes`` go into its record."""
    state = dict(pruned(Depthwise).state_dict())
    record = read_record(state)
    for key, value in changes.items():
        record[key] |= value
    return state | {RECORD: encoded(record["dense"], record["attributes"])}


HUGE = torch.zeros(1).expand(10**15)
HOSTILE = {
    "wider": ({}, {"stem.0.weight": torch.zeros(1).expand(10**12, 3, 3, 3)}, "when dense"),
    "other rank": ({}, {"stem.1.bias": torch.zeros(1, 1)}, r"\(1, 1\) in the file and \(8,\)"),
    "empty": ({}, {"stem.1.bias": torch.zeros(0)}, r"\(0,\) in the file and \(8,\)"),
    "dense": ({"dense": {"stem.0.weight": [10**9, 3, 3, 3]}}, {}, "cut from a wider"),
    "not cut": ({"dense": {"head.bias": [3]}}, {"head.bias": HUGE}, "when dense"),
    "groups": ({"attributes": {"depthwise.0": {"groups": 99}}}, {}, "groups is 99 in the file"),
    "heads": ({"attributes": {"depthwise.0": {"num_heads": 2}}}, {}, "is no number in the module"),
    "eps": ({"attributes": {"depthwise.0": {"eps": 0.5}}}, {}, "eps is set in the file"),
    "torn norm": ({}, {"stem.1.running_var": torch.ones(7)}, r"stem\.1\.running_var is \(7,\)"),
    "kernel": ({}, {"stem.0.weight": torch.ones(8, 3, 2, 3)}, r"stem\.0\.weight has a kernel of"),
    "chain": (
        {},
        {f"stem.1.{n}": torch.ones(7) for n in ("weight", "bias", "running_mean", "running_var")},
        r"stem\.1 takes 7 channels, and stem\.0 before it gives 4",
    ),
    "variance": ({}, {"stem.1.running_var": -torch.ones(8)}, r"stem\.1\.running_var is a variance"),
    "twice": ({}, {"stem._orig_mod.1.bias": torch.zeros(8)}, "differ only by _orig_mod"),
}


@pytest.mark.parametrize(("changes", "tensors", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("plain", [False, True], ids=["load_state_dict", "load_pruned_state_dict"])
def test_what_no_cut_can_have_is_refused_and_nothing_allocated(
    changes, tensors, message, plain, monkeypatch
):
    state = narrow_file(**changes) | tensors
    fresh = make(Depthwise) if plain else tracked(Depthwise)
    text, shapes = str(fresh), {k: v.shape for k, v in fresh.state_dict().items()}
    made = []
    original = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: made.append(a) or original(*a, **k))
    load = partial(load_pruned_state_dict, fresh) if plain else fresh.load_state_dict
    with pytest.raises((RuntimeError, ValueError), match=message):
        load(state)
    assert made == []
    assert str(fresh) == text
    assert {k: v.shape for k, v in fresh.state_dict().items()} == shapes


def test_tensors_that_the_module_lacks_are_not_made():
    fresh = tracked(Depthwise)
    state = narrow_file(dense={"foreign": [4]}, attributes={"gone": {"eps": 1}}) | {"foreign": HUGE}
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fresh.load_state_dict(state)


def test_an_eps_that_was_none_travels():
    def make_norm():
        return track_architecture(nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4)))

    net, fresh = make_norm(), make_norm()
    net[1].eps = 2e-3
    fresh.load_state_dict(net.state_dict())
    assert fresh[1].eps == 2e-3
