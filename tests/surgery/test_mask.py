"""Masks hold, remember and give back; oracles are plain indexing and copies of the weights."""

import copy

import pytest
import torch

from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.mask import ChannelMask, channel_slices
from tests.networks import EXAMPLE, NETWORKS, Chain, Residual, make, random_plan


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def touched(net, groups, plan):
    """Where a removed channel lives in each tensor, by one ``index_fill_`` a slice."""
    found = {}
    for part in channel_slices(net, groups, plan):
        name = f"{part.layer}.{part.tensor}"
        region = found.setdefault(name, torch.zeros(part.values.shape, dtype=torch.bool))
        region.index_fill_(part.dim, part.index, True)
    return found


def disturb(net):
    """What training would do to everything, masked or not."""
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.mul_(0.9).add_(0.01)


def without(plan, *names):
    keep = {name: kept for name, kept in plan.keep.items() if name not in names}
    return PruningPlan(keep, {name: plan.channels[name] for name in keep})


@pytest.mark.parametrize("network", NETWORKS)
def test_exactly_the_removed_channels_are_zeroed(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    before, regions = state(net), touched(net, groups, plan)
    mask = ChannelMask(net, groups, plan)
    alive = {name for name, region in regions.items() if bool(before[name][region].any())}
    assert set(mask.violations()) == {name for name in alive if "running" not in name}
    mask.apply()
    assert mask.violations() == []
    for name, value in net.state_dict().items():
        zero = regions.get(name, torch.zeros(value.shape, dtype=torch.bool))
        if "running" in name:
            zero = torch.zeros_like(zero)
        assert torch.equal(value, before[name].masked_fill(zero, 0)), name


@pytest.mark.parametrize("network", NETWORKS)
def test_restoring_gives_back_rows_and_statistics_bit_by_bit(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    before, regions = state(net), touched(net, groups, plan)
    mask = ChannelMask(net, groups, plan)
    mask.remember()
    mask.apply()
    disturb(net)
    now = state(net)
    assert not mask.restore().plan.keep
    for name, value in net.state_dict().items():
        region = regions.get(name, torch.zeros(value.shape, dtype=torch.bool))
        assert torch.equal(value, torch.where(region, before[name], now[name])), name


def test_only_what_is_masked_is_kept():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    mask = ChannelMask(net, groups, plan)
    mask.remember()
    kept = mask.originals()["values"]
    regions = touched(net, groups, plan)
    assert kept.keys() == regions.keys()
    for name, region in regions.items():
        assert torch.equal(kept[name], net.state_dict()[name][region])


@pytest.mark.parametrize("network", [Chain, Residual])
def test_a_growing_plan_keeps_the_earliest_values(network):
    """Two steps with training between them, each value from when its channel was masked."""
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    large = random_plan(groups, share=0.4)
    small = PruningPlan(
        {n: torch.cat([k, large.removed(n)[:1]]).sort()[0] for n, k in large.keep.items()},
        large.channels,
    )
    first = ChannelMask(net, groups, small)
    dense, early = state(net), touched(net, groups, small)
    first.remember()
    first.apply()
    disturb(net)
    first.apply()
    between, late = state(net), touched(net, groups, large)
    second = ChannelMask(net, groups, large)
    second.remember(copy.deepcopy(first.originals()))
    second.apply()
    disturb(net)
    now = state(net)
    second.restore()
    for name, value in net.state_dict().items():
        none = torch.zeros(value.shape, dtype=torch.bool)
        masked_first, masked = early.get(name, none), late.get(name, none)
        expected = torch.where(masked, between[name], now[name])
        assert torch.equal(value, torch.where(masked_first, dense[name], expected)), name


def test_groups_are_restored_one_after_the_other():
    """A column of a restored row stays zero until its own group returns."""
    net = make(Chain)
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    before = state(net)
    mask = ChannelMask(net, groups, plan)
    mask.remember()
    mask.apply()
    rest = mask.restore(["conv2"])
    assert rest.plan.keep.keys() == plan.keep.keys() - {"conv2"}
    expected = before["conv2.weight"].clone()
    expected[:, plan.removed("conv1")] = 0
    assert torch.equal(net.conv2.weight, expected)
    assert rest.violations() == []
    plain = ChannelMask(net, groups, without(plan, "conv2"))
    assert rest.originals()["values"].keys() == set(touched(net, groups, plain.plan))
    last = rest.restore(["conv1"]).restore(["linear"])
    assert not last.plan.keep
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_cannot_be_restored_is_said():
    net = make(Chain)
    groups = trace_groups(net, EXAMPLE)
    mask = ChannelMask(net, groups, random_plan(groups))
    with pytest.raises(RuntimeError, match=r"call remember\(\) before the mask is applied"):
        mask.restore()
    mask.remember()
    with pytest.raises(KeyError, match="no mask on head: masked are"):
        mask.restore(["head"])


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_held_through_steps_wherever_the_memory_lies(kind):
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    mask = ChannelMask(net, groups, random_plan(groups))
    optimizer = kind(net.parameters(), lr=0.1, weight_decay=0.1)
    torch.manual_seed(1)

    def step():
        optimizer.zero_grad()
        for parameter in net.parameters():  # noise: nothing stays zero by itself
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    step()
    mask.hold([optimizer])
    assert mask.holds([optimizer])
    step()
    assert mask.violations() == []
    net.double()
    step_after_conversion = torch.optim.SGD(net.parameters(), lr=0.1)
    assert not mask.holds([step_after_conversion])
    mask.hold([step_after_conversion])
    optimizer = step_after_conversion
    step()
    assert mask.violations() == []
    assert net.stem[0].weight.dtype == torch.float64
    net.to(memory_format=torch.channels_last)
    step()
    assert mask.violations() == []
    mask.release()
    assert not mask.holds([optimizer])
    step()
    assert mask.violations() != []
