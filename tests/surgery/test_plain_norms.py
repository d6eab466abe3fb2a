"""Norms over cut channels that take statistics of the channels left, where that is asked for."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_prune.engine.verified_cut import verified_cut
from lightning_prune.graph.group import ChannelGroups, Group, Statistics
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.exact_norms import zero_count
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.testing import check_prunable
from tests.networks import random_plan
from tests.sized_networks import IMAGE, Vit


def grouped(groups):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(groups, 8), nn.ReLU(), nn.Conv2d(8, 4, 1))


def test_exact_is_the_default_and_plain_says_what_differs():
    torch.manual_seed(0)
    net = Vit(1)
    exact, plain = check_prunable(net, IMAGE), check_prunable(net, IMAGE, norms="plain")
    assert exact.mixed_by == ()
    assert exact.difference < 1e-5
    assert plain.mixed_by == ("blocks.0.norm1", "blocks.0.norm2", "norm")
    assert plain.difference > 1e-3
    assert plain.macs_after == exact.macs_after


def test_a_plain_cut_leaves_the_norms_what_they_are():
    torch.manual_seed(0)
    net = Vit(1)
    for norms in ("exact", "plain"):
        live = copy.deepcopy(net)
        groups = build_groups(live, IMAGE, norms=norms)
        plan = random_plan(groups)
        ChannelMask(live, groups, plan).apply()
        lines = []
        cut = verified_cut(live, groups, plan, torch.randn(2, 3, 32, 32), log=lines.append)
        kinds = {type(m) for m in live.modules() if isinstance(m, nn.LayerNorm)}
        assert (kinds == {nn.LayerNorm}) == (norms == "plain")
        assert (zero_count(live.norm) is None) == (norms == "plain")
        assert live.norm.normalized_shape == (16,)
        assert (cut.output_difference < 1e-5) == (norms == "exact")
        assert len(lines) == (norms == "plain")


def test_groups_of_one_width_can_be_plain_and_those_of_several_cannot():
    x = torch.zeros(1, 3, 6, 6)
    assert list(build_groups(grouped(1), x, norms="plain")) == ["0"]
    net = grouped(4)
    whole = build_groups(net, x, norms="plain")
    assert (whole["0"].channels, whole["0"].bundle) == (4, 2)  # only whole groups of the norm go
    each = torch.arange(8)
    parts = Group(
        "0",
        8,
        tuple(replace(m, channel=each) for m in whole["0"].members),
        norms=(Statistics("1", 8, each, each),),
    )
    groups = ChannelGroups({"0": parts}).with_norms("plain")
    plan = PruningPlan({"0": torch.tensor([0, 1, 2, 4, 6])}, {"0": 8})
    with pytest.raises(ValueError, match=r"keep different widths: a plain norm has none"):
        cut_channels(copy.deepcopy(net), groups, plan)
    assert cut_channels(net, groups.with_norms("exact"), plan).parameters


def test_anything_else_is_one_clear_error():
    with pytest.raises(ValueError, match=r"norms='exakt': pass 'exact' .* or 'plain'"):
        build_groups(nn.Linear(2, 2), torch.zeros(1, 2), norms="exakt")
