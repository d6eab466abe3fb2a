"""The checkpoint of a masker: plain data with a version, and what earlier releases wrote."""

import io

import pytest
import torch

from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.phase import Phase
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.sequential import GroupDecision

PLAN = PruningPlan({"a": torch.tensor([0, 2])}, {"a": 3})
DECISION = GroupDecision("a", torch.tensor([0, 2]), 3, 2, "knee", "pruned", "")
LEFT = GroupDecision("b", torch.arange(2), 2, None, "none", "left", "too few")


def test_a_state_survives_a_file():
    state = MaskState(
        Phase.HOLDING, PLAN, {"plan": PLAN.state_dict(), "values": {}}, 3, 2, True, True, 0.5, 0.4,
        0.6, ("b",), (DECISION, LEFT), {"a": 2},
    )  # fmt: skip
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    again = MaskState.from_state_dict(torch.load(file, weights_only=True))
    assert again.plan.keep["a"].tolist() == [0, 2]
    assert [d.group for d in again.decisions] == ["a", "b"]
    assert str(again) == str(state)
    assert again.phase is Phase.HOLDING


def test_nothing_is_masked_after_the_cut():
    assert MaskState(Phase.HOLDING, PLAN).masked is PLAN
    assert not MaskState(Phase.CUT, PLAN).masked


@pytest.mark.parametrize(
    ("changes", "phase"),
    [({}, Phase.MASKING), ({"cut": True}, Phase.CUT), ({"step_epoch": None}, Phase.DENSE)],
)
def test_a_ratio_masker_of_before(changes, phase):
    old = {
        "finished": False, "cut": False, "originals": None, "skipped": 1, "ratio": 0.5,
        "plan": PLAN.state_dict(), "removed": 0.4, "share": 0.6, "step_epoch": 3, "met": True,
        "freed": ["b"],
    }  # fmt: skip
    state = MaskState.from_state_dict(old | changes)
    assert state.phase is phase
    assert (state.failed_epoch, state.macs_fraction, state.freed) == (1, 0.6, ("b",))
    assert (state.ratio, state.removed, state.met) == (0.5, 0.4, True)
    assert state.plan.keep["a"].tolist() == [0, 2]


def test_a_sequential_masker_of_before():
    decisions = [DECISION.state_dict(), LEFT.state_dict()]
    old = {"finished": False, "cut": False, "decisions": decisions, "widths": {"a": 2}, "late": 4}
    state = MaskState.from_state_dict(old)
    assert (state.phase, state.step_epoch, state.widths) == (Phase.MASKING, 4, {"a": 2})
    assert list(state.plan.keep) == ["a"]
    assert [d.status for d in state.decisions] == ["pruned", "left"]
