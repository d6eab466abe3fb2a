import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.loop.cut_record import assert_cut, cut_record, tells_widths
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from tests.graph.factors import attention, factor_groups
from tests.graph.test_removed_rows import plan_of


def test_factors_are_recorded_and_not_looked_for():
    net, groups = attention(), factor_groups()
    plan = plan_of("embed", "qkv", "qkv:2")
    cut_channels(net, groups, plan)
    line = cut_record(0, 0.5, None, plan, groups)
    assert line.endswith("kept: embed 3/8, 2/4 of qkv, 4/6 of qkv:2")
    assert tells_widths(line)
    assert tells_widths(cut_record(0, 0.5, None, plan_of("qkv"), groups))
    assert_cut(net, line)
    with pytest.raises(RuntimeError, match="but embed has 8"):
        assert_cut(attention(), line)


def test_a_plain_group_is_looked_for():
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    groups = trace_groups(net, torch.zeros(1, 2))
    plan = PruningPlan({"0": torch.tensor([1, 2, 3])}, {"0": 4})
    line = cut_record(1, 0.5, 0.6, plan, groups)
    assert line == "epoch 1: cut to 50.0% of the dense MACs (target 60.0%); kept: 0 3/4"
    with pytest.raises(RuntimeError, match=r"0 from 4 to 3 channels.*but 0 has 4"):
        assert_cut(net, line)
    cut_channels(net, groups, plan)
    assert_cut(net, line)
