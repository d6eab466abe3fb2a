import torch

from lightning_prune.graph.group import Member
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.layer_listing import layer_listing
from lightning_prune.report.layers import active_channels, layer_rows
from lightning_prune.surgery.mask import ChannelMask
from tests.graph.factors import attention, example, factor_groups
from tests.graph.test_removed_rows import plan_of
from tests.networks import EXAMPLE, Concat, Residual, make


def test_one_row_per_layer_in_forward_order_with_the_groups_decision():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    decisions = [
        GroupDecision("project.0", torch.arange(5), 12, 7, "mac_target", "pruned", ""),
        GroupDecision("stem.0", torch.arange(2), 8, None, "fallback", "fallback", "no object"),
    ]
    plan = PruningPlan({d.group: d.keep for d in decisions}, {"project.0": 12, "stem.0": 8})
    ChannelMask(net, groups, plan).apply()
    rows = layer_rows(decisions, groups, net)
    assert [row.name for row in rows] == ["stem.0", "a2.0", "project.0", "b2.0"]
    tied = rows[1]
    assert (tied.group, tied.channels_before, tied.channels_after) == ("stem.0", 8, 2)
    assert (tied.pruning_ratio, tied.active_channels) == (0.75, 2)
    assert (tied.knee, tied.bound, tied.status, tied.reason) == (
        None, "fallback", "fallback", "no object",
    )  # fmt: skip
    assert [row.active_channels for row in rows[2:]] == [5, 5]


def test_active_channels_are_those_above_the_threshold():
    layer = make(Concat).up
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 1] = 1e-7
        layer.weight[0, 2] = 1e-5
    member = Member("up", "producer", torch.arange(6), torch.arange(6), (("weight", 1),))
    assert active_channels(layer, member) == 1


def test_a_layer_of_two_groups_has_a_row_for_each():
    net, groups, plan = attention(), factor_groups(), plan_of("qkv", "qkv:2")
    ChannelMask(net, groups, plan).apply()
    decisions = [
        GroupDecision(name, keep, plan.channels[name], None, "ratio", "pruned", "")
        for name, keep in plan.keep.items()
    ]
    rows = layer_rows(decisions, groups, net)
    found = [
        (r.name, r.group, r.channels_before, r.channels_after, r.active_channels) for r in rows
    ]
    assert found == [("qkv", "qkv", 4, 2, 2), ("qkv", "qkv:2", 6, 4, 4)]
    assert [row.label for row in rows] == ["qkv", "qkv:2"]
    lines = layer_listing(net, groups, example()).splitlines()
    shown = [line.split()[1:3] for line in lines if line.startswith("* ")]
    assert shown == [["embed", "8"], ["qkv", "4"], ["qkv", "6"], ["project", "8"]]
