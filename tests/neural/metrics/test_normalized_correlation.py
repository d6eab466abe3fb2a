import math

import pytest
import torch

from lightning_prune.neural.functional.normalized_correlation import normalized_correlation
from lightning_prune.neural.metrics.normalized_correlation import NormalizedCorrelation

INSTANTS, REPEATS, CELLS = 12, 5, 3


def samples() -> tuple[torch.Tensor, ...]:
    """Instants of a stimulus in any order, their repeats, rates that vary a little between them."""
    generator = torch.Generator().manual_seed(0)
    instant = torch.arange(INSTANTS).repeat_interleave(REPEATS)
    rate = 1 + 3 * torch.rand(INSTANTS, CELLS, generator=generator)
    counts = torch.poisson(rate.repeat_interleave(REPEATS, 0), generator=generator)
    predicted = rate.repeat_interleave(REPEATS, 0)
    predicted = predicted * (1 + 0.1 * torch.rand(len(instant), 1, generator=generator))
    return instant, predicted.log(), counts, torch.ones(len(instant), CELLS).bool()


def expected(log_rate: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    responses = counts.view(INSTANTS, REPEATS, -1).transpose(0, 1)
    prediction = log_rate.double().exp().view(INSTANTS, REPEATS, -1).mean(1)
    return normalized_correlation(responses, prediction)


def test_batches_in_any_order_equal_all_at_once():
    instant, log_rate, counts, valid = samples()
    metric = NormalizedCorrelation([2, CELLS])
    # Trial after trial, each showing the instants in an order of its own.
    generator = torch.Generator().manual_seed(1)
    shuffled = torch.rand(REPEATS, INSTANTS, generator=generator).argsort(1)
    order = (shuffled * REPEATS + torch.arange(REPEATS)[:, None]).flatten()
    for part in order.split(7):
        metric.update(1, instant[part], log_rate[part], counts[part], valid[part])
    first, second = metric.compute()
    assert first.isnan().all()
    torch.testing.assert_close(second, expected(log_rate, counts))


def test_samples_without_a_repeat_do_not_count():
    instant, log_rate, counts, valid = samples()
    metric = NormalizedCorrelation([CELLS])
    metric.update(0, instant, log_rate, counts, valid)
    wanted = metric.compute()[0]
    metric.update(0, torch.full_like(instant, -1), log_rate, 0 * counts, valid)
    metric.update(0, torch.tensor([99]), log_rate[:1], counts[:1], valid[:1])  # shown once
    assert torch.equal(metric.compute()[0], wanted)


def test_an_instant_in_which_a_cell_was_not_valid_is_left_out_for_that_cell():
    instant, log_rate, counts, valid = samples()
    valid[3 * REPEATS, 1] = False
    metric = NormalizedCorrelation([CELLS])
    metric.update(0, instant, log_rate, counts, valid)
    found = metric.compute()[0]
    kept = instant != 3
    responses = counts[kept].view(INSTANTS - 1, REPEATS, CELLS).transpose(0, 1)
    prediction = log_rate[kept].double().exp().view(INSTANTS - 1, REPEATS, CELLS).mean(1)
    wanted = expected(log_rate, counts)
    wanted[1] = normalized_correlation(responses, prediction)[1]
    torch.testing.assert_close(found, wanted)


def test_mixed_sessions_of_a_batch():
    instant, log_rate, counts, valid = samples()
    metric = NormalizedCorrelation([CELLS, 1])
    session = torch.arange(2).repeat_interleave(len(instant))
    padded = torch.zeros(2 * len(instant), CELLS)
    padded[: len(instant)] = counts
    padded[len(instant) :, :1] = counts[:, :1]
    targets = {"spikes": padded, "valid": valid.repeat(2, 1), "repeat": instant.repeat(2)}
    metric.update_batch([log_rate.repeat(2, 1), log_rate[:, :1].repeat(2, 1)], session, targets)
    first, second = metric.compute()
    torch.testing.assert_close(first, expected(log_rate, counts))
    torch.testing.assert_close(second.reshape(1), first[:1])  # torchmetrics squeezes it


def test_nothing_repeated_is_no_result():
    metric = NormalizedCorrelation([2])
    ones = torch.ones(4, 2)
    metric.update(0, torch.full((4,), -1), 0 * ones, ones, ones.bool())
    assert metric.compute()[0].isnan().all()
    metric = NormalizedCorrelation([1])
    metric.update(0, torch.arange(4), torch.zeros(4, 1), torch.ones(4, 1), torch.ones(4, 1).bool())
    assert math.isnan(metric.compute()[0])


@pytest.mark.parametrize("first_rank", [0, 20])
def test_two_processes_merge(first_rank: int):
    # What torchmetrics does over ranks: the parts of each state are joined.
    instant, log_rate, counts, valid = samples()
    parts = [NormalizedCorrelation([CELLS]) for _ in range(2)]
    for metric, rows in zip(parts, (slice(first_rank), slice(first_rank, None)), strict=True):
        metric.update(0, instant[rows], log_rate[rows], counts[rows], valid[rows])
    for name in ("session", "instant", "rate", "spikes"):
        setattr(parts[0], name, getattr(parts[0], name) + getattr(parts[1], name))
    torch.testing.assert_close(parts[0].compute()[0], expected(log_rate, counts))
