import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.policies.selection.step_schedule import StepSchedule


@given(
    start=st.integers(0, 5),
    per_step=st.one_of(st.none(), st.integers(1, 7)),
    between=st.integers(1, 4),
    hold=st.integers(0, 3),
    groups=st.integers(1, 12),
)
def test_equals_a_walk_through_the_epochs(start, per_step, between, hold, groups):
    """Oracle: epoch by epoch, mask the next groups when their epoch has come."""
    schedule = StepSchedule(start, per_step, between, hold)
    masked, last, masks = 0, None, []
    for epoch in range(start + groups * between + hold + 2):
        if epoch >= start and (epoch - start) % between == 0 and masked < groups:
            masked = groups if per_step is None else min(groups, masked + per_step)
            last = epoch
        masks.append(masked)
    assert [schedule.due(epoch, groups) for epoch in range(len(masks))] == masks
    assert schedule.cut_epoch(groups) == last + hold
    assert schedule.contradiction(last + hold + 1, groups) is None
    assert schedule.contradiction(last + hold, groups) is not None


def test_a_contradiction_names_all_its_parts():
    message = StepSchedule(3, 2, 4, 1).contradiction(8, 5)
    assert message.startswith("the cut would fall on epoch 13 but max_epochs=8: start_epoch=3 + 2")
    assert "epochs_per_step=4 + hold_epochs=1" in message


@pytest.mark.parametrize(("per_step", "steps"), [(None, 1), (1, 5), (2, 3), (5, 1), (9, 1)])
def test_number_of_steps(per_step, steps):
    assert StepSchedule(0, per_step, 1, 0).steps(5) == steps
