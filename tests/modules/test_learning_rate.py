import pytest
import torch

from lightning_prune.modules.learning_rate import learning_rate_factor


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
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=101, pct_start=0.3, div_factor=25, final_div_factor=4,
        cycle_momentum=False,
    )  # fmt: skip
    # torch counts its last step as reached: its 101 steps rise over 0.3 * 101 - 1.
    for step in range(100):
        rise = 0.3 * 101 - 1
        ours = learning_rate_factor(step, 100, 0, 0.01, "one_cycle")
        theirs = torchs.get_last_lr()[0]
        assert ours == pytest.approx(theirs, abs=0.03), (step, rise)
        optimizer.step()
        torchs.step()
