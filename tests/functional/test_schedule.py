import pytest
import torch

from lightning_prune.functional.schedule import learning_rate_factor


def curve(total, warmup, final, schedule):
    return [learning_rate_factor(s, total, warmup, final, schedule) for s in range(total + 5)]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "one_cycle"])
@pytest.mark.parametrize(("total", "warmup", "final"), [(100, 30, 0.01), (1, 0, 0.5), (3, 1, 0.0)])
def test_stays_in_range_and_ends_at_the_final_factor(schedule, total, warmup, final):
    values = curve(total, warmup, final, schedule)
    assert all(0 <= value <= 1 for value in values)
    assert values[total:] == pytest.approx([final] * 5)
    assert max(values) == pytest.approx(1.0, abs=0.5 if total < 10 else 0.01)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "one_cycle"])
def test_rises_then_falls(schedule):
    values = torch.tensor(curve(200, 40, 0.01, schedule))
    top = int(values.argmax())
    assert top == (60 if schedule == "one_cycle" else 40)
    assert (values[: top + 1].diff() > 0).all()
    assert (values[top:201].diff() < 0).all()


def test_without_warmup_starts_at_the_top():
    assert learning_rate_factor(0, 10, 0, 0.1) == 1.0


def test_one_cycle_equals_that_of_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch's rise ends at pct_start * total_steps - 1: this puts it at step 30 of 100, as ours.
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=101, pct_start=31 / 101, div_factor=25, final_div_factor=4,
        cycle_momentum=False,
    )  # fmt: skip
    for step in range(100):
        ours = learning_rate_factor(step, 100, 0, 0.01, "one_cycle")
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_constant_stays_at_the_peak_after_the_warm_up():
    assert curve(10, 3, 0.1, "constant") == [0.25, 0.5, 0.75] + [1.0] * 12
