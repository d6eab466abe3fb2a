import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.functional.ratio import RatioSchedule
from tests.golden_vectors import GoldenVectors


def test_golden_schedules(golden_vectors: GoldenVectors):
    rows = json.loads((golden_vectors / "07_schedule.json").read_text())["rows"]
    compared = 0
    for row in rows:
        # The vectors act at epochs divisible by epoch_rate, the schedule counts from its start.
        if row["start"] % row["epoch_rate"] or row["start"] >= row["end"]:
            continue
        schedule = RatioSchedule(row["start"], row["end"], row["epoch_rate"], row["rate"])
        assert len(schedule.epochs) == row["n_scheduled"]
        assert schedule.ratio(row["epoch"]) == pytest.approx(row["pr_ideal"], abs=1e-12)
        if row["epoch"] != row["end"]:
            assert schedule.is_scheduled(row["epoch"]) == row["acts_ideal"]
        else:  # The vectors act once more there, with the ratio that is already reached.
            assert schedule.ratio(row["epoch"]) == schedule.ratio(row["epoch"] - 1) == row["rate"]
        compared += 1
    assert compared > 100


@given(st.integers(0, 20), st.integers(1, 30), st.integers(1, 7), st.floats(0.01, 1))
def test_equal_steps_that_end_at_the_final_ratio(start: int, length: int, rate: int, final: float):
    schedule = RatioSchedule(start, start + length, rate, final)
    ratios = [schedule.ratio(epoch) for epoch in range(start + length + 3)]
    assert ratios[start + length :] == [final] * 3
    seen, steps = 0.0, 0
    for epoch, ratio in enumerate(ratios):
        due = start <= epoch < start + length and (epoch - start) % rate == 0
        assert schedule.is_scheduled(epoch) == due
        steps += due
        assert ratio == pytest.approx(steps * final / len(schedule.epochs))
        assert ratio >= seen
        seen = ratio


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 3), "start_epoch=-1"),
        ((3, 3), "end_epoch=3 leaves no epoch from start_epoch=3"),
        ((0, 3, 0), "epoch_rate=0"),
        ((0, 3, 1, 0.0), r"ratio=0\.0: pass a number in \(0, 1\], the fraction"),
        ((0, 3, 1, 1.2), r"ratio=1\.2: pass a number in \(0, 1\], the fraction"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments: tuple[float, ...], message: str):
    with pytest.raises(ValueError, match=message):
        RatioSchedule(*arguments)
