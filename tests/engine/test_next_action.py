"""The transition table: what is due at an epoch, for every kind of steps."""

import pytest
import torch

from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.next_action import (
    Cut,
    Finished,
    Hold,
    Mask,
    Retry,
    Wait,
    next_action,
)
from lightning_prune.engine.phase import Phase
from lightning_prune.engine.steps import GroupSteps, RatioSteps
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.policies.selection.step_schedule import StepSchedule

# Steps at 2, 4 and 6.
SCHEDULE = RatioSchedule(2, 7, 2, 0.6)
NAMES = ("a", "b")
TRAINER = RatioSteps(SCHEDULE, NAMES, hold_epochs=2)
AT_ONCE = RatioSteps(SCHEDULE, NAMES, hold_epochs=0)
LOOP = RatioSteps(SCHEDULE, NAMES, hold_epochs=1, catch_up=True)
SLICES = RatioSteps(SCHEDULE, NAMES, closing=True)  # and once more at 7
SUDDEN = RatioSteps(SCHEDULE, NAMES, closing=True, gradually=False)
# "a" and "b" at 1, "c" at 4, the cut at 6.
GROUPS = GroupSteps(StepSchedule(1, 2, 3, 2), ("a", "b", "c"))


def at(step=None, failed=None, **fields):
    return MaskState(step_epoch=step, failed_epoch=failed, **fields)


def decided(*names, step=None, failed=None):
    decisions = tuple(
        GroupDecision(name, torch.arange(2), 4, 2, "knee", "pruned", "") for name in names
    )
    return MaskState(step_epoch=step, failed_epoch=failed, decisions=decisions)


@pytest.mark.parametrize(
    ("steps", "state", "epoch", "action"),
    [
        # A ratio that rises.
        (TRAINER, at(), 1, Wait()),
        (TRAINER, at(), 2, Mask(0.2)),
        (TRAINER, at(2), 2, Wait()),
        (TRAINER, at(2), 3, Wait()),
        (TRAINER, at(2), 4, Mask(0.4)),
        (TRAINER, at(4), 6, Mask(0.6)),
        (TRAINER, at(6), 6, Hold()),
        (TRAINER, at(6), 7, Hold()),
        (TRAINER, at(6), 8, Cut()),
        (TRAINER, at(6, finished=True), 9, Finished()),
        (TRAINER, at(6, phase=Phase.CUT), 9, Finished()),
        (AT_ONCE, at(6), 6, Cut()),
        # A target that is met ends the steps.
        (TRAINER, at(2, met=True), 2, Hold()),
        (TRAINER, at(2, met=True), 4, Cut()),
        # Whose epoch was missed is left out, or made up for.
        (TRAINER, at(), 3, Wait()),
        (LOOP, at(), 3, Mask(0.2)),
        (LOOP, at(2), 5, Mask(0.4)),
        (LOOP, at(), 9, Mask(0.6)),
        (LOOP, at(9), 9, Hold()),
        (LOOP, at(9), 10, Cut()),
        (LOOP, at(5), 4, Wait()),
        # What could not be decided: the next step, and after the last one every epoch.
        (TRAINER, at(failed=2), 2, Wait()),
        (TRAINER, at(failed=2), 3, Wait()),
        (TRAINER, at(failed=2), 4, Retry(0.4)),
        (TRAINER, at(4, failed=6), 7, Retry(0.6)),
        (TRAINER, at(4, failed=7), 7, Wait()),
        (TRAINER, at(7, failed=6), 8, Hold()),
        (TRAINER, at(7, failed=6), 9, Cut()),
        (LOOP, at(failed=2), 3, Retry(0.2)),
        # Groups that were freed.
        (TRAINER, at(2, freed=("a",)), 4, Mask(0.4)),
        (TRAINER, at(2, freed=NAMES), 4, Cut()),
        (TRAINER, at(freed=NAMES), 2, Wait()),
        # Slices: one more step, and no cut.
        (SLICES, at(6), 7, Mask(0.6)),
        (SLICES, at(7), 8, Hold()),
        (SLICES, at(6, failed=7), 8, Retry(0.6)),
        (SLICES, at(6, failed=6), 8, Retry(0.6)),
        (SUDDEN, at(), 2, Mask(0.6)),
        (SUDDEN, at(), 1, Wait()),
        # Group by group.
        (GROUPS, decided(), 0, Wait()),
        (GROUPS, decided(), 1, Mask(groups=("a", "b"))),
        (GROUPS, decided("a", "b", step=1), 3, Wait()),
        (GROUPS, decided("a", "b", step=1), 4, Mask(groups=("c",))),
        (GROUPS, decided("a", "b", "c", step=4), 5, Hold()),
        (GROUPS, decided("a", "b", "c", step=4), 6, Cut()),
        (GROUPS, decided("a", failed=1), 1, Wait()),
        (GROUPS, decided("a", failed=1), 2, Retry(groups=("b",))),
        (GROUPS, decided("a", "b", failed=4), 7, Retry(groups=("c",))),
        (GROUPS, decided("a", "b", "c", step=7, failed=4), 8, Hold()),
        (GROUPS, decided("a", "b", "c", step=7, failed=4), 9, Cut()),
    ],
)
def test_what_is_due(steps, state, epoch, action):
    found = next_action(state, steps, epoch)
    assert type(found) is type(action)
    if isinstance(action, Mask):
        assert found.ratio == pytest.approx(action.ratio)
        assert found.groups == action.groups
