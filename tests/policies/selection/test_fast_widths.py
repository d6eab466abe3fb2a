import copy

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.estimated_time import estimated_time
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.policies.selection.ranking import RANKINGS
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from lightning_prune.surgery.cut import cut_channels
from tests.policies.selection.made_up_losses import evidence

PICTURE = torch.zeros(1, 3, 64, 64)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    found = {}
    for name, net in (
        ("yolov8n", YOLOv8("n", num_classes=3)),
        ("resnet18", torchvision.models.resnet18(num_classes=10)),
    ):
        groups = trace_groups(net.eval(), PICTURE)
        found[name] = net, groups, MacModel.of(net, groups, PICTURE)
    return found


def selection(case, ranking, fast, round_to=8):
    _, groups, macs = case
    return RatioSelection(
        groups, tuple(groups), macs, Magnitude(2), ranking, (0.1, 1.0), round_to, fast_widths=fast
    )


def took(case, step, vector=16):
    _, groups, macs = case
    widths = step.plan.widths()
    time = estimated_time(macs, list(groups), vector, 0.0)
    return float(time(np.array([[widths[name] for name in groups]], dtype=float))[0])


@pytest.mark.parametrize("target", [0.7, 0.5, 0.3])
@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("network", ["yolov8n", "resnet18"])
def test_the_target_is_met_in_less_time(networks, network, ranking, target):
    case = networks[network]
    net, groups, macs = case
    one, other = selection(case, ranking, None), selection(case, ranking, FastWidths())
    plain = one.select(net, 1.0, target, None, evidence(one, net))
    fast = other.select(net, 1.0, target, None, evidence(other, net))
    assert fast.reached
    assert target - (0.02 if ranking == "measured" else 0.01) < fast.macs_fraction <= target
    # Widths that were measured may be the fastest already.
    assert took(case, fast) < took(case, plain) * (1.001 if ranking == "measured" else 1)
    cut = copy.deepcopy(net)
    cut_channels(cut, groups, fast.plan)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        cut(PICTURE)
    assert counter.get_total_flops() // 2 == fast.macs == round(fast.macs_fraction * macs.total)
    for name, width in fast.plan.widths().items():
        channels = groups[name].channels
        assert width == channels or width % 8 == 0
        assert width >= max(8, 0.1 * channels)


@pytest.mark.parametrize("cost", [0, 200])
@pytest.mark.parametrize("shift", [0.125, 0.25])
@pytest.mark.parametrize("steps", [6, 25])
def test_steps_together_go_no_further_than_one(networks, steps, shift, cost):
    """With one ratio for all layers the shift is counted from it, however many steps there were."""
    case = networks["yolov8n"]
    net, groups, _ = case
    chooser = selection(case, "local", FastWidths(memory_cost=cost, max_shift=shift))
    plain = selection(case, "local", None)
    held = None
    for ratio in np.linspace(0, 1, steps + 1)[1:]:
        before = held
        step = chooser.select(net, float(ratio), 0.5, held)
        held = step.plan
        reference = plain.select(net, float(ratio), 0.5).plan.widths()
        for name, width in held.widths().items():
            channels = groups[name].channels
            # One block more: which of two layers at the same ratio is first differs.
            far = max(shift * channels, 8 if channels >= 32 else 0) + 8
            assert width <= (channels if before is None else before.widths()[name])
            assert abs(width - reference[name]) <= far
            if before is not None:
                assert set(held.keep[name].tolist()) <= set(before.keep[name].tolist())
        if step.reached:
            break
    assert 0.49 < step.macs_fraction <= 0.5


def test_without_a_target_macs_stay_what_the_ratio_makes_them(networks):
    case = networks["yolov8n"]
    net, _, macs = case
    plain = selection(case, "global", None).select(net, 0.4, None)
    fast = selection(case, "global", FastWidths()).select(net, 0.4, None)
    assert plain.macs - 0.0051 * macs.total <= fast.macs <= plain.macs
    assert took(case, fast) < took(case, plain)


def test_a_cost_of_memory_makes_the_first_layers_narrower(networks):
    case = networks["yolov8n"]
    net, groups, _ = case
    first = list(groups)[:6]
    widths = [
        selection(case, "local", FastWidths(memory_cost=cost, max_shift=0.25)).select(net, 1.0, 0.5)
        for cost in (0, 200)
    ]
    plain, narrow = (sum(step.plan.widths()[name] for name in first) for step in widths)
    assert narrow < plain


@pytest.mark.parametrize("vector", [1, 4, 8])
def test_widths_of_whole_vectors_stay(networks, vector):
    case = networks["yolov8n"]
    plain = selection(case, "local", None).select(case[0], 1.0, 0.5)
    fast = selection(case, "local", FastWidths(vector=vector)).select(case[0], 1.0, 0.5)
    assert fast.plan.widths() == plain.plan.widths()


def test_no_layer_selected(networks):
    net, groups, macs = networks["resnet18"]
    nothing = RatioSelection(groups, (), macs, Magnitude(), fast_widths=FastWidths())
    assert not nothing.select(net, 0.5, None).plan.keep


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"vector": 0},
            "vector=0: pass an integer of at least 1, the channels that the hardware computes at",
        ),
        ({"memory_cost": -1.0}, "memory_cost=-1.0: pass a number of at least 0, the time to write"),
        ({"memory_cost": float("nan")}, "memory_cost=nan"),
        ({"max_shift": 0.0}, r"max_shift=0.0: pass a number in \(0, 1\]"),
        ({"max_shift": 1.5}, r"max_shift=1.5: pass a number in \(0, 1\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FastWidths(**arguments)
