import json

import pytest
import torch
from torch import nn

from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.penalties.group_norms import group_norms
from lightning_prune.report.norm_analysis import norm_analysis
from lightning_prune.report.norm_history import NormHistory
from lightning_prune.surgery.cut import cut_channels
from tests.networks import Residual

EXAMPLE = torch.zeros(1, 3, 8, 8)


@torch.no_grad()
def shrink(net: nn.Module, epoch: int) -> None:
    """Make the first channels of one layer small, more of them each epoch."""
    net.a1[0].weight[:epoch] *= 1e-3
    net.a1[1].weight[:epoch] *= 1e-3
    net.a2[0].weight[:, :epoch] *= 1e-3


def history_of(net: nn.Module) -> NormHistory:
    groups = trace_groups(net, EXAMPLE)
    found = []
    for epoch in range(4):
        shrink(net, epoch)
        found.append(group_norms(net, groups))
    return NormHistory(
        (0, 1, 2, 3), {name: torch.stack([n[name] for n in found]) for name in groups}
    )


def test_macs_are_those_of_the_model_without_its_low_channels():
    torch.manual_seed(0)
    net = Residual()
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    history = history_of(net)
    rows = norm_analysis(history, macs=macs)["epochs"]
    assert [row["low_channels"] for row in rows] == [k / history.channels for k in (0, 1, 2, 3)]
    assert rows[0]["macs"] == 1
    low = history.low(0.1)
    keep = {name: (~flags[3]).nonzero()[:, 0] for name, flags in low.items()}
    widths = {name: group.channels for name, group in groups.items()}
    cut_channels(net, groups, PruningPlan(keep, widths))
    assert rows[3]["macs"] * macs.total == pytest.approx(count_macs(net, EXAMPLE))


def test_start_is_the_first_epoch_with_enough():
    torch.manual_seed(0)
    history = history_of(Residual())
    two = 2 / history.channels
    assert norm_analysis(history, wanted=two)["start"] == 2
    assert norm_analysis(history, wanted=two + 1e-6)["start"] == 3
    assert norm_analysis(history, wanted=0.9)["start"] is None
    # Under a threshold that no channel passes nothing is low.
    assert norm_analysis(history, threshold=1e-9, wanted=two)["start"] is None


def test_one_channel_of_a_dead_group_stays():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    rows = norm_analysis(NormHistory((0,), {"0": torch.zeros(1, 4)}), macs=macs)["epochs"]
    assert rows[0]["macs"] == 1 / 4


def test_is_plain_data():
    content = norm_analysis(NormHistory((0, 1), {"a": torch.rand(2, 3)}))
    assert json.loads(json.dumps(content)) == content
    assert content["epochs"][0]["macs"] is None
    assert content["groups"]["a"]["channels"] == 3


@pytest.mark.parametrize("wanted", [0.0, 1.0, -0.2])
def test_wanted_is_a_fraction(wanted: float):
    with pytest.raises(ValueError, match=r": pass a number in \(0, 1\)"):
        norm_analysis(NormHistory((0,), {"a": torch.ones(1, 3)}), wanted=wanted)
