import copy
import re

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.functional.widths.least_loss import least_loss_widths
from lightning_prune.graph.isomorphic import isomorphic_sets
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.non_finite_importance import NonFiniteImportanceError
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.selection.ranking import RANKINGS
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, NETWORKS, Chain, Residual, make
from tests.policies.selection.made_up_losses import evidence, made_up

PICTURE = torch.zeros(1, 3, 64, 64)


class Case:
    """A network with its groups, traced once."""

    def __init__(self, net: nn.Module, example: torch.Tensor) -> None:
        self.net, self.example = net.eval(), example
        self.groups = trace_groups(net, example)
        self.macs = MacModel.of(net, self.groups, example)
        self.names = tuple(self.groups)

    def selection(self, ranking="global", criterion=None, names=None, **options) -> RatioSelection:
        names = names or self.names
        return RatioSelection(
            self.groups, names, self.macs, criterion or Magnitude(2), ranking, **options
        )

    def select(self, selection: RatioSelection, *arguments):
        """Select with losses that are measured, were they of any use to the ranking."""
        held = arguments[2] if len(arguments) > 2 else None
        return selection.select(self.net, *arguments[:2], held, evidence(selection, self.net))

    def counted(self, plan: PruningPlan) -> int:
        """MACs of the model that is really cut, by torch's own counter."""
        net = copy.deepcopy(self.net)
        cut_channels(net, self.groups, plan)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            net(self.example)
        return counter.get_total_flops() // 2


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    torch.manual_seed(0)
    return {
        "yolov8n": Case(YOLOv8("n", num_classes=3), PICTURE),
        "resnet18": Case(torchvision.models.resnet18(num_classes=10), PICTURE),
    }


# --- MAC targets --------------------------------------------------------------------------------


@pytest.mark.parametrize("round_to", [8, 1])
@pytest.mark.parametrize("target", [0.7, 0.5, 0.3])
@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("network", ["yolov8n", "resnet18"])
def test_the_cut_model_meets_the_target_from_below(cases, network, ranking, target, round_to):
    case = cases[network]
    selection = case.selection(ranking, keep_range=(0.1, 1.0), round_to=round_to)
    step = case.select(selection, 1.0, target)
    assert step.reached
    assert step.macs_fraction == step.macs / case.macs.total <= target
    assert step.macs == case.macs.remaining(step.plan.widths())
    assert step.macs == case.counted(step.plan)
    if ranking != "local":
        assert target - step.macs_fraction < (0.02 if ranking == "measured" else 0.01)
    removed = {n: case.groups[n].channels - w for n, w in step.plan.widths().items()}
    for name, count in removed.items():
        channels = case.groups[name].channels
        assert count <= 0.9 * channels
        assert channels - count >= round_to
        assert count == 0 or (channels - count) % round_to == 0
    assert step.removed == pytest.approx(
        sum(removed.values()) / sum(case.groups[name].channels for name in removed)
    )


@pytest.mark.parametrize("round_to", [8, 1])
@pytest.mark.parametrize("network", ["yolov8n", "resnet18"])
def test_local_layers_stay_within_a_block_of_one_ratio(cases, network, round_to):
    case = cases[network]
    step = case.selection("local", round_to=round_to).select(case.net, 1.0, 0.5)
    wide = {name: case.groups[name].channels for name in case.names}
    free = {n: w for n, w in step.plan.widths().items() if wide[n] > round_to}
    lower = max((wide[n] - w - round_to) / wide[n] for n, w in free.items())
    upper = min((wide[n] - w + round_to) / wide[n] for n, w in free.items())
    assert lower <= upper
    assert 0.5 - step.macs_fraction < 0.02


@pytest.mark.parametrize("criterion", [BNScale(), RandomChoice(1), Magnitude(1)])
def test_other_criteria_land_as_close(cases, criterion):
    case = cases["yolov8n"]
    names = tuple(name for name in case.names if name != case.names[-1])
    step = case.selection(criterion=criterion, names=names, round_to=8).select(case.net, 1.0, 0.5)
    assert 0 <= 0.5 - step.macs_fraction < 0.01
    assert set(step.plan.keep) == set(names)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("round_to", [1, 4])
def test_small_networks_meet_what_is_in_reach(network, ranking, round_to):
    case = Case(make(network), EXAMPLE)
    selection = case.selection(ranking, round_to=round_to)
    for target in (0.9, 0.6, 0.4):
        try:
            selection.check(case.net, target)
        except ValueError:
            assert not case.select(selection, 1.0, target).macs_fraction <= target
            continue
        step = case.select(selection, 1.0, target)
        assert step.reached
        assert case.counted(step.plan) == step.macs <= target * case.macs.total


# --- ratios -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranking", ["global", "local", "isomorphic"])
def test_a_ratio_removes_that_fraction_of_every_scope(cases, ranking):
    case = cases["yolov8n"]
    step = case.selection(ranking).select(case.net, 0.3, None)
    sets = {
        "global": [0] * len(case.names),
        "local": range(len(case.names)),
        "isomorphic": isomorphic_sets(case.net, case.groups, case.names),
    }[ranking]
    widths = step.plan.widths()
    for scope in set(sets):
        names = [n for n, own in zip(case.names, sets, strict=True) if own == scope]
        channels = sum(case.groups[n].channels for n in names)
        gone = channels - sum(widths[n] for n in names)
        assert gone == -(-3 * channels // 10)  # rounded up
    assert not step.reached
    assert step.ratio == 0.3


@pytest.mark.parametrize("network", ["yolov8n", "resnet18"])
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_measured_losses_choose_widths_at_the_macs_of_one_ratio(cases, network, ratio):
    case = cases[network]
    local = case.selection("local", round_to=8).select(case.net, ratio, None)
    measured = case.selection("measured", round_to=8)
    step = case.select(measured, ratio, None)

    widths = list(measured.allowed.values())
    losses = [made_up(name, own).losses for name, own in measured.allowed.items()]
    cost = case.macs.cost_of(case.names)
    best = least_loss_widths(widths, losses, cost, local.macs, power=0.5)
    assert list(step.plan.widths().values()) == best
    assert 0.97 * local.macs <= step.macs <= local.macs
    assert not step.reached


def test_of_two_layers_the_one_that_loses_less_becomes_narrower():
    case = Case(nn.Sequential(*(nn.Linear(8, 8) for _ in range(3))), torch.zeros(1, 8))
    selection = case.selection("measured")
    losses = {"0": (0.0, *[1.0] * 7), "1": (0.0, *[0.1] * 7)}  # all of it at the first channel
    known = {
        name: Evidence(case.net, case.groups[name], elimination=made)
        for name, made in (
            (name, Elimination(torch.arange(7), tuple(range(8, 0, -1)), own))
            for name, own in losses.items()
        )
    }
    step = selection.select(case.net, 0.5, None, None, known)
    assert step.plan.widths()["0"] == 8
    assert step.plan.widths()["1"] < 4


def test_the_least_important_go_over_all_groups(cases):
    case = cases["resnet18"]
    step = case.selection(criterion=Magnitude(1)).select(case.net, 0.2, None)
    relative = Magnitude(1).comparable(case.net, case.groups, case.names, case.macs, PruningPlan())
    kept = torch.cat([relative[n][step.plan.keep[n]] for n in case.names])
    gone = torch.cat([relative[n][step.plan.removed(n)] for n in case.names])
    assert gone.max() <= kept.min()
    assert all(float(values.mean()) == pytest.approx(1.0) for values in relative.values())


def test_everything_that_may_go_is_the_end(cases):
    case = cases["resnet18"]
    step = case.selection(keep_range=(0.25, 1.0), round_to=8).select(case.net, 1.0, None)
    assert step.reached
    assert step.plan.widths() == {n: case.groups[n].channels // 4 for n in case.names}
    # Nothing is asked for: nothing goes.
    none = case.selection().select(case.net, 0.0, 0.5)
    assert (none.removed, none.macs_fraction, none.reached) == (0.0, 1.0, False)


# --- steps --------------------------------------------------------------------------------------


class Changing(Criterion):
    """Another importance at every step, as after some epochs of training."""

    def __init__(self) -> None:
        self.seed = 0

    def importance(self, evidence):
        return RandomChoice(self.seed).importance(evidence)


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("round_to", [1, 8])
def test_what_is_held_stays_removed(cases, ranking, round_to):
    case, criterion = cases["resnet18"], Changing()
    selection = case.selection(ranking, criterion, round_to=round_to, keep_range=(0.1, 1.0))
    held, shares = PruningPlan(), [1.0]
    for step_number in range(1, 11):
        criterion.seed = step_number
        step = case.select(selection, step_number / 10, 0.35, held)
        for name in held.keep:
            assert set(held.removed(name).tolist()) <= set(step.plan.removed(name).tolist())
        held = step.plan
        shares.append(step.macs_fraction)
        if step.reached:
            break
    assert shares == sorted(shares, reverse=True)
    assert 0 <= 0.35 - shares[-1] < (0.01 if ranking != "local" else 0.05)
    # A target that is met leaves nothing to do.
    again = case.select(selection, 1.0, 0.35, held)
    assert all(torch.equal(again.plan.keep[n], held.keep[n]) for n in case.names)


def test_masked_channels_do_not_enter_the_mean():
    case = Case(make(Residual), EXAMPLE)
    keep = {"project.0": torch.arange(4)}
    held = PruningPlan(keep, {"project.0": 12})
    criterion = Magnitude(2)
    relative = criterion.comparable(case.net, case.groups, case.names, case.macs, held)
    assert float(relative["project.0"][:4].mean()) == pytest.approx(1.0)
    assert float(relative["stem.0"].mean()) == pytest.approx(1.0)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize(("most", "round_to"), [(0.5, 1), (1.0, 4), (0.7, 3)])
def test_an_unreachable_target_states_the_reachable_minimum(ranking, most, round_to):
    case = Case(make(Residual), EXAMPLE)
    selection = case.selection(
        ranking, names=("a1.0", "b1.0"), keep_range=(1 - most, 1.0), round_to=round_to
    )
    with pytest.raises(ValueError, match=r"cannot be reached: the 2 selected groups") as caught:
        selection.check(case.net, 0.05)
    stated = float(re.search(r"at least (\d+\.\d)% of the dense", str(caught.value))[1]) / 100
    assert "raise mac_target, lower keep_range or round_to, or select" in str(caught.value)
    everything = case.select(selection, 1.0, None)
    assert stated == pytest.approx(case.counted(everything.plan) / case.macs.total, abs=6e-4)
    selection.check(case.net, stated + 1e-3)
    assert case.select(selection, 1.0, stated + 1e-3).reached
    # Without the check the step goes as far as it can.
    assert case.select(selection, 1.0, 0.05).plan.widths() == everything.plan.widths()


def test_no_groups_leave_the_model_as_it_is():
    case = Case(make(Chain), EXAMPLE)
    nothing = RatioSelection(case.groups, (), case.macs, Magnitude())
    step = nothing.select(case.net, 0.5, 0.5)
    assert (step.plan.widths(), step.removed, step.macs_fraction, step.reached) == (
        {},
        0.0,
        1.0,
        True,
    )


def test_the_criterion_is_asked_before_training():
    case = Case(make(Chain), EXAMPLE)
    with pytest.raises(ValueError, match="no BatchNorm"):
        case.selection(criterion=BNScale()).check(case.net, None)
    case.selection().check(case.net, None)


def test_a_diverged_model_says_so():
    case = Case(make(Residual), EXAMPLE)
    case.net.a1[0].weight.data[2] = torch.nan
    found = r"by Magnitude is NaN or infinite for 1 of the 6 channels of 'a1\.0'"
    with pytest.raises(NonFiniteImportanceError, match=found):
        case.selection().select(case.net, 0.5, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranking": "none"}, "ranking='none': pass 'global', 'local', 'isomorphic' or 'measured'"),
        ({"keep_range": (1.0, 1.0)}, r"keep_range=\(1\.0, 1\.0\): pass the smallest fraction"),
        ({"keep_range": (0.1, 0.5)}, "and 1: the ranking may leave a layer whole"),
        ({"round_to": 0}, "round_to=0"),
    ],
)
def test_arguments_are_checked(options, message):
    case = Case(make(Chain), EXAMPLE)
    with pytest.raises(ValueError, match=message):
        case.selection(**options)
