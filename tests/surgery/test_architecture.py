import copy
import io

import pytest
import torch
from safetensors.torch import load as st_load
from safetensors.torch import save as st_save
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_prune.graph.groups import build_groups
from lightning_prune.surgery.architecture import RECORD, read_record, resize_to, track_architecture
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, NETWORKS, Chain, Depthwise, Residual, make, random_plan


def tracked(network, seed=0):
    return track_architecture(make(network, seed))


def pruned(network, seed=0, share=0.5):
    net = tracked(network, seed)
    groups = build_groups(net, EXAMPLE)
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
    groups = build_groups(wide, EXAMPLE)
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
