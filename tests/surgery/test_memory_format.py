"""Channels last through masks, cuts, optimizer states and loads; the oracle is the other format."""

import copy

import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.memory_format import (
    laid_out_like,
    lay_out_channels_last,
    lay_out_plainly,
    lay_out_states,
    memory_format_of,
    plainly_laid_out,
)
from lightning_prune.surgery.optimizer import rebind_optimizer
from tests.networks import EXAMPLE, NETWORKS, Residual, make, random_plan

LAST = torch.channels_last


def weights(net):
    return {name: p for name, p in net.named_parameters() if p.ndim == 4}


def all_last(net):
    return all(
        memory_format_of(p) == LAST or p.numel() == p.shape[1] for p in weights(net).values()
    )


def step(net, optimizer):
    optimizer.zero_grad()
    net(
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 1, 3, 3), (4, 3, 1, 1), (1, 3, 2, 1)])
@pytest.mark.parametrize("rows", [[0, 1, 2], [0]])
def test_strides_are_those_that_torch_gives(shape, rows):
    pattern = torch.randn(shape).to(memory_format=LAST)
    rows = torch.tensor([row for row in rows if row < shape[0]])
    found = laid_out_like(pattern.index_select(0, rows), pattern)
    assert found.equal(pattern[rows])
    assert found.stride() == torch.empty(found.shape).to(memory_format=LAST).stride()


def test_volumes_have_a_format_too_and_others_none():
    volume = torch.randn(4, 3, 2, 2, 2).to(memory_format=torch.channels_last_3d)
    assert memory_format_of(laid_out_like(volume[:2].clone(), volume)) == torch.channels_last_3d
    for other in (torch.randn(4, 3, 3, 3), torch.randn(4, 3), torch.randn(4, 3, 3, 3)[:, :2]):
        assert memory_format_of(other) == torch.contiguous_format
        values = torch.randn(other.shape)
        assert laid_out_like(values, other) is values


@pytest.mark.parametrize("network", NETWORKS)
def test_masked_equals_cut_and_the_format_stays(network):
    plain = make(network)
    net = copy.deepcopy(plain)
    lay_out_channels_last([net])
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    for one in (plain, net):
        ChannelMask(one, groups, plan).apply()
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        masked = net.eval()(x)
        torch.testing.assert_close(masked, plain.eval()(x), atol=1e-4, rtol=1e-4)
        cut_channels(net, groups, plan)
        torch.testing.assert_close(net(x), masked, atol=1e-4, rtol=1e-4)
    assert all_last(net)


@pytest.mark.parametrize("fused", [False, True])
def test_optimizer_states_keep_the_format_and_their_values(fused):
    ends = []
    for last in (False, True):
        net = make(Residual).train()
        if last:
            lay_out_channels_last([net])
        # Fused kernels take one order in memory for parameter, gradient and state alike.
        optimizer = torch.optim.AdamW(net.parameters(), 1e-2, fused=fused)
        step(net, optimizer)
        groups = trace_groups(net, EXAMPLE)
        rebind_optimizer(optimizer, cut_channels(net, groups, random_plan(groups)))
        for parameter in weights(net).values():
            state = optimizer.state[parameter]
            assert state["exp_avg"].stride() == parameter.stride() == state["exp_avg_sq"].stride()
        step(net, optimizer)
        assert all_last(net) is last
        ends.append(net.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=2e-3, rtol=1e-3, msg=name)


def test_states_that_a_file_brought_follow_their_parameters():
    net = make(Residual).train()
    lay_out_channels_last([net])
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2, fused=True)
    step(net, optimizer)
    file = copy.deepcopy(plainly_laid_out(optimizer.state_dict()))
    assert all(
        value.is_contiguous() for state in file["state"].values() for value in state.values()
    )
    twin = copy.deepcopy(net)
    other = torch.optim.AdamW(twin.parameters(), 1e-2, fused=True)
    other.load_state_dict(file)
    lay_out_states([other])
    for one, held in ((net, optimizer), (twin, other)):
        step(one, held)
    assert all(a.equal(b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    assert memory_format_of(optimizer.state[net.b1[0].weight]["exp_avg"]) == LAST


def test_a_narrower_file_is_loaded_into_the_format_of_the_module():
    net = make(Residual)
    track_architecture(net)
    dense = copy.deepcopy(net)
    groups = trace_groups(net, EXAMPLE)
    cut_channels(net, groups, random_plan(groups))
    lay_out_channels_last([dense])
    dense.load_state_dict(net.state_dict())
    assert all_last(dense)
    assert all(a.equal(b) for a, b in zip(net.parameters(), dense.parameters(), strict=True))


def test_parameters_stay_the_objects_that_they_are():
    net = make(Residual)
    before = list(net.parameters())
    lay_out_channels_last([net])
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    state = net.state_dict()
    lay_out_plainly(state)
    assert all(value.is_contiguous() for value in state.values())
    assert all_last(net)
    assert state["stem.1.weight"].data_ptr() == net.stem[1].weight.data_ptr()


def test_volumes_and_sparse_tensors_are_left_alone():
    net = nn.Sequential(nn.Conv3d(2, 2, 3))
    lay_out_channels_last([net])
    assert net[0].weight.is_contiguous()
    sparse = torch.eye(3).to_sparse()
    assert plainly_laid_out({"a": [sparse]})["a"][0] is sparse


def test_bfloat16_passes_differ_by_rounding_alone():
    """Masked and cut model under autocast: sums of other lengths, each rounded to 8 bits."""
    net = make(Residual).eval()
    lay_out_channels_last([net])
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    ChannelMask(net, groups, plan).apply()
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        masked = net(x).float()
        cut_channels(net, groups, plan)
        found = net(x).float()
    assert float((found - masked).abs().max() / masked.abs().max()) < 8 * 2**-8
