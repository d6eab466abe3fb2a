import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.functional.widths.width import clip_width
from lightning_prune.graph.estimated_time import estimated_time
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.group_scores import weight_norm
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.policies.selection.sequential import GroupDecision, SequentialSelection
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, NETWORKS, Chain, make
from tests.policies.fixtures import one_class, residual, sampled, seen

CLUSTERER = ChannelClusterer(embedding="pca")


def selection(groups, names=None, criterion=None, keep_range=(0.25, 0.5), round_to=1, **options):
    names = tuple(groups) if names is None else names
    limits = keep_range, round_to
    return SequentialSelection(
        groups, names, CLUSTERER, criterion or Separability(), *limits, **options
    )


def all_of(net, groups):
    return seen(net, groups.prunable_layers)


# --- widths ---------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("target", [0.25, 0.4, 0.55])
@pytest.mark.parametrize("round_to", [1, 4])
@pytest.mark.parametrize("keep_range", [(0.25, 0.75), None])
def test_planned_widths_meet_the_target_from_below_with_no_room_for_another_block(
    network, target, round_to, keep_range
):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    stage = selection(groups, keep_range=keep_range, round_to=round_to)
    free = [name for name in groups if stage.why_left(groups[name]) is None]
    knees = {n: max(2, (3 * groups[n].channels) // 7) for n in groups}
    knees[free[0]] = None  # no knee: the upper bound
    counts = {n: knees[n] or clip_width(None, groups[n].channels, keep_range).width for n in free}

    def at(factor):
        return {
            n: clip_width(
                max(1, round(factor * counts[n])), groups[n].channels, keep_range, round_to
            ).width
            for n in free
        }

    # Between these factors no width changes.
    steps = {0.0, 1e3} | {
        (w + half) / counts[n]
        for n in free
        for w in range(groups[n].channels + 2)
        for half in (0.5 - 1e-6, 0.5, 0.5 + 1e-6)
    }
    budget = target * macs.total
    reachable = [at(f) for f in sorted(steps) if macs.remaining(at(f)) <= budget]
    if not reachable:
        with pytest.raises(ValueError, match="cannot be met"):
            stage.plan_widths(knees, macs, target)
        return
    planned = stage.plan_widths(knees, macs, target)
    assert macs.remaining(planned) <= budget
    for name, width in planned.items():
        # At least as wide as the largest common factor allows ...
        assert width >= reachable[-1][name]
        wide = groups[name].channels
        allowed = {clip_width(k, wide, keep_range, round_to).width for k in range(1, wide + 1)}
        # ... and no layer could take one block more.
        for wider in sorted(w for w in allowed if w > width)[:1]:
            assert macs.remaining(planned | {name: wider}) > budget
    plan = PruningPlan({n: torch.arange(w) for n, w in planned.items()},
                       {n: groups[n].channels for n in planned})  # fmt: skip
    cut_channels(net, groups, plan)
    assert count_macs(net, EXAMPLE) == macs.remaining(planned)


@pytest.mark.parametrize("keep_range", [(0.1, 1.0), None])
@pytest.mark.parametrize("target", [0.7, 0.5, 0.3])
def test_rounded_widths_land_just_below_the_target(keep_range, target):
    """Equal layers jump a block at the same factor: a common factor alone left up to 7 %."""
    net = YOLOv8("n", num_classes=3)
    example = torch.zeros(1, 3, 64, 64)
    groups = trace_groups(net, example)
    macs = MacModel.of(net, groups, example)
    knees = {name: groups[name].channels // 2 for name in groups}
    planned = selection(groups, keep_range=keep_range, round_to=8).plan_widths(knees, macs, target)
    assert 0 <= target - macs.remaining(planned) / macs.total < 0.01
    assert all(width % 8 == 0 for width in planned.values())


@pytest.mark.parametrize("keep_range", [(0.25, 0.75), None])
@pytest.mark.parametrize("target", [0.5, 0.35])
def test_fast_widths_take_less_time_within_the_bounds(keep_range, target):
    net = YOLOv8("n", num_classes=3)
    example = torch.zeros(1, 3, 64, 64)
    groups = trace_groups(net, example)
    macs = MacModel.of(net, groups, example)
    knees = {name: 2 * groups[name].channels // 5 for name in groups}
    options = {"keep_range": keep_range, "round_to": 8}
    plain = selection(groups, **options).plan_widths(knees, macs, target)
    fast = selection(groups, **options, fast_widths=FastWidths())
    moved = fast.plan_widths(knees, macs, target)
    time = estimated_time(macs, list(groups), 16, 0.0)
    took = time(np.array([[w[name] for name in groups] for w in (plain, moved)], dtype=float))
    assert took[1] < 0.95 * took[0]
    assert 0 <= target - macs.remaining(moved) / macs.total < 0.01
    for name, width in moved.items():
        wide = groups[name].channels
        allowed = {clip_width(k, wide, keep_range, 8).width for k in range(1, wide + 1)}
        assert width in allowed
        assert abs(width - plain[name]) <= max(wide / 8, 8 if wide >= 32 else 0)


@pytest.mark.parametrize(
    ("keep_range", "round_to"), [((0.5, 0.75), 1), ((0.25, 0.5), 4), (None, 1)]
)
def test_an_unreachable_target_states_the_reachable_minimum(keep_range, round_to):
    net, groups = residual()
    names = ("a1.0", "b1.0")
    macs = MacModel.of(net, groups, EXAMPLE)
    stage = selection(groups, names, keep_range=keep_range, round_to=round_to)
    with pytest.raises(ValueError, match="cannot be reached") as caught:
        stage.check(net, macs, 0.05)
    stated = float(re.search(r"leave (0\.\d+);", str(caught.value))[1])
    narrowest = {
        n: min(
            clip_width(k, groups[n].channels, keep_range, round_to).width
            for k in range(1, groups[n].channels + 1)
        )
        for n in names
    }
    plan = PruningPlan({n: torch.arange(w) for n, w in narrowest.items()},
                       {n: groups[n].channels for n in names})  # fmt: skip
    cut_channels(net, groups, plan)
    assert stated == pytest.approx(count_macs(net, EXAMPLE) / macs.total, abs=5e-4)
    # And with that much it can be reached.
    net, groups = residual()
    stage.check(net, macs, stated + 6e-4)
    assert stage.plan_widths(dict.fromkeys(names), macs, stated + 6e-4) == narrowest


def test_the_criterion_is_asked_before_training():
    net = make(Chain)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    with pytest.raises(ValueError, match="no BatchNorm"):
        selection(groups, criterion=BNScale()).check(net, macs, None)
    selection(groups).check(net, macs, None)


# --- decisions ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stem.0", "b1.0", "project.0"])
@pytest.mark.parametrize("keep_range", [(0.25, 0.5), (0.9, 1.0), None])
def test_without_a_plan_the_knee_within_the_bounds_decides(name, keep_range):
    net, groups = residual()
    found = all_of(net, groups)
    decision, clustering = selection(groups, keep_range=keep_range).decide(net, name, found)
    width, bound = clip_width(clustering.knee, groups[name].channels, keep_range)
    assert (len(decision.keep), decision.bound, decision.knee) == (width, bound, clustering.knee)
    assert (decision.status, decision.reason, decision.channels) == (
        "pruned", "", groups[name].channels,
    )  # fmt: skip


def test_a_planned_width_is_kept_and_named():
    net, groups = residual()
    found = all_of(net, groups)
    stage = selection(groups)
    own, _ = stage.decide(net, "project.0", found)
    planned, _ = stage.decide(net, "project.0", found, width=len(own.keep) + 3)
    assert (len(planned.keep), planned.bound) == (len(own.keep) + 3, "mac_target")
    same, _ = stage.decide(net, "project.0", found, width=len(own.keep))
    assert same.bound == own.bound
    assert torch.equal(same.keep, own.keep)


def test_all_criteria_get_the_same_widths():
    net, groups = residual()
    found = all_of(net, groups)
    kept = [
        selection(groups, criterion=criterion).decide(net, "project.0", found)[0].keep
        for criterion in (Separability(), Magnitude(2), BNScale(), RandomChoice(3))
    ]
    assert len({len(keep) for keep in kept}) == 1
    assert any(not torch.equal(a, b) for a, b in itertools.combinations(kept, 2))


def test_without_any_object_the_largest_filters_stay_at_the_upper_bound():
    net, groups = residual()
    nothing = ObjectActivations(groups.prunable_layers)
    decision, clustering = selection(groups).decide(net, "project.0", nothing)
    assert clustering is None
    assert (decision.status, decision.bound, decision.knee) == ("fallback", "fallback", None)
    assert "no object was matched" in decision.reason
    norms = weight_norm(net, groups["project.0"], 1)
    assert torch.equal(decision.keep, norms.argsort(descending=True)[:6].sort()[0])


def test_one_class_alone_falls_back_and_says_so():
    net, groups = residual()
    found = one_class(all_of(net, groups))
    decision, clustering = selection(groups).decide(net, "project.0", found)
    assert clustering is None
    assert decision.status == "fallback"
    assert "one class only" in decision.reason
    assert len(decision.keep) == 6


def test_groups_without_a_choice_are_left_with_the_reason():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    groups = trace_groups(net, EXAMPLE)
    found = seen(net, groups.prunable_layers)
    tiny, _ = selection(groups).decide(net, "0", found)
    assert (tiny.status, tiny.keep.tolist()) == ("left", [0, 1, 2])
    assert tiny.reason == "3 channels are too few to choose among"
    coarse, _ = selection(groups, round_to=8).decide(net, "1", found)
    assert (coarse.status, len(coarse.keep)) == ("left", 8)
    assert coarse.reason == "8 channels with round_to=8 leave no choice"
    assert selection(groups, round_to=4).decide(net, "1", found)[0].status == "pruned"


def test_decisions_travel_as_plain_data():
    net, groups = residual()
    decision, _ = selection(groups).decide(net, "b1.0", all_of(net, groups))
    state = decision.state_dict()
    assert {type(value) for value in state.values()} <= {str, int, bool, torch.Tensor, type(None)}
    again = GroupDecision(**state)
    assert torch.equal(again.keep, decision.keep)
    assert (again.bound, again.knee) == (decision.bound, decision.knee)


def test_a_baseline_does_not_fall_back_without_objects():
    """It never looked at clusters: what it chose is its own choice."""
    net = make(Chain)
    groups = trace_groups(net, EXAMPLE)
    unseen = ObjectActivations(groups["conv1"].producers)
    for criterion, status in ((Magnitude(), "pruned"), (Separability(), "fallback")):
        chooser = selection(groups, criterion=criterion)
        decision, clustering = chooser.decide(net, "conv1", unseen, width=3)
        assert clustering is None
        assert decision.status == status
        assert len(decision.keep) == 3
        assert ("at the planned width" in decision.reason) == (status == "fallback")


# --- counts and noise -----------------------------------------------------------------------


def test_the_count_sets_the_width_where_it_is_asked_to():
    net, groups = residual()
    found = sampled(net, groups.prunable_layers)
    by_knee, _ = selection(groups).decide(net, "project.0", found)
    by_count, clustering = selection(groups, count="distinct").decide(net, "project.0", found)
    assert by_knee.count == by_count.count == clustering.count == 3
    assert by_knee.knee == by_count.knee
    assert (len(by_count.keep), by_count.bound) == (3, "count")
    # One of each profile, the strongest.
    norms = weight_norm(net, groups["project.0"], 1)
    assert sorted(int(k) % 3 for k in by_count.keep) == [0, 1, 2]
    assert all(norms[k] == norms[int(k) % 3 :: 3].max() for k in by_count.keep)
    wide, _ = selection(groups, keep_range=(0.5, 0.75), count="distinct").decide(
        net, "project.0", found
    )
    assert (len(wide.keep), wide.bound) == (6, "lower")


def test_without_a_sample_nothing_is_said_of_the_count():
    net, groups = residual()
    decision, _ = selection(groups).decide(net, "project.0", all_of(net, groups))
    assert (decision.count, decision.separability) == (None, None)


@pytest.mark.parametrize("width", [None, 4])
def test_where_separability_is_noise_the_norm_chooses(width):
    net, groups = residual()
    group = groups["b1.0"]
    found = sampled(net, groups.prunable_layers, noise=group.producers)
    norm = GroupNorm()
    chooser = selection(groups, noise_criterion=norm)
    decision, _ = chooser.decide(net, "b1.0", found, width)
    expected = clip_width(None, group.channels, (0.25, 0.5)).width if width is None else width
    assert decision.noise
    assert (decision.status, decision.count) == ("fallback", 1)
    where = "upper bound" if width is None else "planned width"
    assert decision.reason.endswith(f"random labels: channels chosen by GroupNorm at the {where}")
    assert decision.bound == ("fallback" if width is None else "mac_target")
    assert len(decision.keep) == expected
    evidence = Evidence(net, group)
    assert torch.equal(decision.keep, norm.choose(evidence, expected))
    # Where it is not, and where nobody asks, clusters choose as ever.
    kept = chooser.decide(net, "project.0", found, 4)[0]
    plain = selection(groups).decide(net, "project.0", found, 4)[0]
    assert (kept.status, kept.noise, kept.reason) == ("pruned", False, "")
    assert torch.equal(kept.keep, plain.keep)
    as_ever = selection(groups).decide(net, "b1.0", found, width)[0]
    assert (as_ever.status, as_ever.noise) == ("pruned", True)
    assert as_ever.reason.endswith("random labels: its clusters are noise")


def test_a_group_of_noise_shrinks_as_the_others_do_on_average():
    net = make(Chain)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    stage = selection(groups, keep_range=None)
    names = [name for name in groups if stage.why_left(groups[name]) is None]
    counts = {name: groups[name].channels // 2 for name in groups}
    told = stage.plan_widths(counts, macs, 0.4)
    counts[names[0]] = 1
    assert stage.plan_widths(counts, macs, 0.4, names[:1]) == told
    assert stage.plan_widths(counts, macs, 0.4) != told
    # Where all are, all shrink alike.
    ones = dict.fromkeys(groups, 1)
    assert stage.plan_widths(ones, macs, 0.4, names) == told


def test_the_noise_criterion_is_asked_before_training():
    net = make(Chain)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    with pytest.raises(ValueError, match="no BatchNorm"):
        selection(groups, noise_criterion=BNScale()).check(net, macs, None)
