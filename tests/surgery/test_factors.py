"""Groups that are factors of the same rows, and channels in bare parameters, from mask to cut."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from lightning_prune.graph.channel_rows import weight_rows
from lightning_prune.graph.estimated_time import estimated_time
from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.group import ChannelGroups, Group, Member
from lightning_prune.graph.importance import group_importance
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Evidence, check_observable
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.surgery.channel_weights import ChannelWeights
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.optimizer import assert_bound, rebind_optimizer
from lightning_prune.surgery.trial_macs import TrialMacs
from tests.graph.factors import (
    HEADS,
    OUTPUTS,
    WIDTH,
    Bare,
    attention,
    bare_groups,
    example,
    factor_groups,
)
from tests.graph.test_removed_rows import KEEP, WIDE, plan_of

TOKENS = torch.arange(12).view(3, 4) % 9


def grid(names=(*WIDE,)):
    """Which of the (3, heads, width) rows stay, by NumPy."""
    masks = []
    for name in ("qkv", "qkv:2"):
        mask = np.isin(np.arange(WIDE[name]), KEEP[name]) if name in names else np.ones(WIDE[name])
        masks.append(mask.astype(bool))
    return np.tile(np.outer(*masks).ravel(), 3)


# --- masks and cuts -----------------------------------------------------------------------------


def test_a_mask_zeroes_all_but_the_product_and_the_cut_gives_the_same():
    net, groups, x = attention(), factor_groups(), example()
    plan = plan_of(*WIDE)
    dense = net.qkv.weight.detach().clone()
    ChannelMask(net, groups, plan).apply()
    columns = np.isin(np.arange(OUTPUTS), KEEP["embed"])
    expected = dense * torch.from_numpy(np.outer(grid(), columns))
    assert torch.equal(net.qkv.weight, expected)
    masked = net(x)
    cut_channels(net, groups, plan)
    assert net.qkv.weight.shape == (24, 3)
    rows, kept = torch.from_numpy(np.flatnonzero(grid())), torch.tensor(KEEP["embed"])
    assert torch.equal(net.qkv.weight, dense[rows][:, kept])
    torch.testing.assert_close(net(x), masked, atol=1e-6, rtol=1e-5)


def test_one_factor_comes_back_while_the_other_stays_masked():
    net, groups = attention(), factor_groups()
    dense = {name: value.clone() for name, value in net.state_dict().items()}
    mask = ChannelMask(net, groups, plan_of("qkv", "qkv:2"))
    mask.remember()
    mask.apply()
    rest = mask.restore(["qkv"])
    only = torch.from_numpy(grid(("qkv:2",)))
    assert torch.equal(net.qkv.weight, dense["qkv.weight"] * only[:, None])
    assert torch.equal(net.project.weight, dense["project.weight"] * only[: HEADS * WIDTH])
    assert rest.violations() == []
    assert list(rest.plan.keep) == ["qkv:2"]
    rest.restore()
    assert all(torch.equal(value, dense[name]) for name, value in net.state_dict().items())


def test_the_optimizer_keeps_what_it_knows_of_the_rows_that_stay():
    net, groups, x = attention(), factor_groups(), example()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    before = {n: dict(optimizer.state[p]) for n, p in net.named_parameters()}
    pruned = cut_channels(net, groups, plan_of(*WIDE))
    rebind_optimizer(optimizer, pruned)
    assert_bound([optimizer], pruned)
    rows, kept = np.flatnonzero(grid()), KEEP["embed"]
    for key in ("exp_avg", "exp_avg_sq"):
        weight = before["qkv.weight"][key].numpy()[np.ix_(rows, kept)]
        assert np.array_equal(optimizer.state[net.qkv.weight][key].numpy(), weight)
        bias = before["qkv.bias"][key].numpy()[rows]
        assert np.array_equal(optimizer.state[net.qkv.bias][key].numpy(), bias)
        columns = before["project.weight"][key].numpy()[np.ix_(kept, rows[: len(rows) // 3])]
        assert np.array_equal(optimizer.state[net.project.weight][key].numpy(), columns)
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_with_a_length_of_their_own_are_masked_and_cut(kind):
    torch.manual_seed(0)
    net = nn.Sequential(kind(nn.Linear(3, 6)), nn.ReLU(), kind(nn.Linear(6, 2))).eval()
    every, old = torch.arange(6), kind is weight_norm
    inner, (g, v) = ("", ("weight_g", "weight_v")) if old else (
        ".parametrizations.weight", ("original0", "original1"),
    )  # fmt: skip
    members = (
        Member(f"0{inner}", "producer", every, every, ((g, 0), (v, 0))),
        Member("0", "producer", every, every, (("bias", 0),)),
        Member(f"2{inner}", "consumer", every, every, ((v, 1),)),
    )
    groups = ChannelGroups({"0": Group("0", 6, members)}, {}, ("0", "2"))
    plan = PruningPlan({"0": torch.tensor([1, 4])}, {"0": 6})
    x = torch.randn(5, 3)
    macs = MacModel.of(net, groups, x)
    ChannelMask(net, groups, plan).apply()
    masked = net(x)
    assert masked.isfinite().all()
    cut_channels(net, groups, plan)
    torch.testing.assert_close(net(x), masked)
    assert (net[0].out_features, net[2].in_features) == (2, 2)
    assert macs.remaining({"0": 2}) == count_macs(net, x)


# --- MACs ---------------------------------------------------------------------------------------


def with_products():
    """The groups by hand, with the factors of both products."""
    groups = factor_groups()
    heads = replace(groups["qkv"], products=((1.0, ("qkv", "qkv:2")),))
    return replace(groups, groups={**groups.groups, "qkv": heads})


def test_macs_of_factors_come_out_as_predicted():
    net, groups = attention(), with_products()
    assert TrialMacs(net, groups, plan_of(*WIDE), example(), call).miscounted([*WIDE]) == {}
    without = TrialMacs(net, factor_groups(), plan_of(*WIDE), example(), call)
    assert without.miscounted([*WIDE]).keys() == {"qkv", "qkv:2"}


def test_the_trace_finds_what_products_are_made_of():
    groups = trace_groups(attention(), example())
    assert {name: group.products for name, group in groups.items()} == {
        "embed": (),
        "qkv": ((1.0, ("qkv",)),),
    }


def test_macs_are_those_of_the_cut_network():
    groups = with_products()
    macs = MacModel.of(attention(), groups, example())
    names = ("qkv:2", "embed", "qkv")
    several = macs.costs_of(names)
    time = estimated_time(macs, names, vector=1, memory_cost=0)
    for wide in itertools.product((1, 4, 6), (1, 3, 8), (1, 3, 4)):
        widths = dict(zip(names, wide, strict=True))
        net = attention()
        keep = {name: torch.arange(width) for name, width in widths.items()}
        cut_channels(net, groups, PruningPlan(keep, {name: WIDE[name] for name in names}))
        counted = count_macs(net, example())
        assert macs.remaining(widths) == counted
        assert several(np.array([wide], dtype=float))[0] == pytest.approx(counted)
        assert macs.cost_of(names)(wide) == counted
        assert time(np.array([wide], dtype=float))[0] == pytest.approx(counted)
    some = macs.costs_of(("qkv",))(np.array([[1.0], [3.0]]))
    assert some == pytest.approx([macs.remaining({"qkv": 1}), macs.remaining({"qkv": 3})])


# --- weights in bare parameters -------------------------------------------------------------------


def bare():
    torch.manual_seed(0)
    net = Bare()
    return net, bare_groups()


def parts(net):
    """The weights of each channel of the stream as one row, by NumPy."""
    table, positions, down, up = (
        value.detach().double().numpy()
        for value in (net.table.weight, net.positions, net.down, net.up)
    )
    return {"table": table.T, "positions": positions[0].T, "down": down.T, "up": up}


def test_shared_and_bare_parameters_are_cut_once():
    net, groups = bare()
    keep = {"table": torch.tensor([0, 2, 5]), "up": torch.arange(4)}
    plan = PruningPlan(keep, {"table": 6, "up": 10})
    ChannelMask(net, groups, plan).apply()
    masked = net(TOKENS)
    pruned = cut_channels(net, groups, plan)
    assert net.head.weight is net.table.weight
    assert net.table.weight.shape == (9, 3)
    assert net.positions.shape == (1, 4, 3)
    assert set(pruned.parameters) == {
        "table.weight", "head.weight", "positions", "down", "up", "gain",
    }  # fmt: skip
    torch.testing.assert_close(net(TOKENS), masked)


def test_norms_are_over_all_rows_wherever_their_dimension_is():
    net, groups = bare()
    weights = ChannelWeights(net, groups, ["table"])
    known = parts(net)
    expected = sum((rows**2).sum(1) for rows in known.values())
    assert weights.squares().numpy() == pytest.approx(expected, rel=1e-5)
    assert weights.counts.tolist() == [sum(rows.shape[1] for rows in known.values())] * 6
    norm = group_importance(net, groups["table"], "norm").numpy()
    assert norm == pytest.approx(expected / 4, rel=1e-5)  # the mean over its tensors
    magnitude = Magnitude(p=1).importance(Evidence(net, groups["table"])).numpy()
    both = np.concatenate([known["positions"], known["down"]], 1)
    assert magnitude == pytest.approx(np.abs(known["table"]).sum(1) + np.abs(both).sum(1), rel=1e-5)
    rows = weight_rows(net, groups["table"].members[1])
    assert rows.detach().numpy() == pytest.approx(both, rel=1e-6)


def test_a_penalty_reaches_later_dimensions():
    net, groups = bare()
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    strength = torch.arange(6.0)
    ChannelWeights(net, groups, ["table"]).add_to_gradients(strength)
    assert torch.equal(net.positions.grad, net.positions * strength)
    assert torch.equal(net.up.grad, net.up * strength[:, None])
    assert torch.equal(net.down.grad, net.down * strength)
    assert torch.equal(net.table.weight.grad, net.table.weight * strength)
    assert not net.gain.grad.any()


def test_gradients_count_wherever_the_channels_are():
    net, groups = bare()
    net(TOKENS).square().mean().backward()

    def products(value):
        return (value * value.grad).detach().double()

    table, positions, down = (products(v) for v in (net.table.weight, net.positions, net.down))
    up, gain = products(net.up), products(net.gain)
    each = [table, positions.flatten(0, 1), down, up.T]
    taylor = sum(value.abs().sum(0) for value in each) / 4
    found = group_importance(net, groups["table"], "taylor")
    torch.testing.assert_close(found, taylor, rtol=1e-4, atol=1e-9)
    fisher = Fisher()
    fisher.start()
    fisher.add_batch(net, groups, ["table"])
    expected = sum(value.sum(0).abs() for value in [*each, gain[None]])
    torch.testing.assert_close(
        fisher.importance(Evidence(net, groups["table"])), expected, rtol=1e-4, atol=1e-8
    )


def test_a_group_whose_activations_nobody_shows_is_refused_where_they_are_needed():
    net, groups = bare()
    check_observable(net, groups["table"])
    with pytest.raises(ValueError, match="activations of group 'up' cannot be read: no layer"):
        check_observable(net, groups["up"])
