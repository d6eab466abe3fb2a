import copy
import warnings

import pytest
import torch
from torch import Tensor

from lightning_prune.neural.functional.bits_per_spike import bits_per_spike
from lightning_prune.neural.metrics.bits_per_spike import BitsPerSpike

CELLS = [3, 2]


def samples(count: int = 101) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    log_rates = [torch.randn(count, cells, generator=generator) for cells in CELLS]
    session = torch.randint(0, 2, (count,), generator=generator)
    spikes = torch.poisson(torch.ones(count, 3), generator=generator)
    valid = torch.rand(count, 3, generator=generator) < 0.8
    valid[session == 1, 2] = False
    return log_rates, session, {"spikes": spikes, "valid": valid}


def batches(size: int, start: int = 0, step: int = 1):
    log_rates, session, targets = samples()
    rows = torch.arange(len(session))[start::step]
    for part in rows.split(size):
        yield (
            [each[part] for each in log_rates],
            session[part],
            {k: v[part] for k, v in targets.items()},
        )


def filled(size: int, start: int = 0, step: int = 1) -> BitsPerSpike:
    metric = BitsPerSpike(CELLS)
    for batch in batches(size, start, step):
        metric.update_batch(*batch)
    return metric


@pytest.mark.parametrize("size", [1, 7, 101])
def test_batches_of_mixed_sessions_equal_all_samples_at_once(size: int):
    log_rates, session, targets = samples()
    found = filled(size).compute()
    for index, cells in enumerate(CELLS):
        mine = session == index
        expected = bits_per_spike(
            log_rates[index][mine].double().exp(),
            targets["spikes"][mine, :cells],
            targets["valid"][mine, :cells],
        )
        torch.testing.assert_close(found[index], expected, rtol=1e-12, atol=1e-12)


def test_two_processes_equal_one():
    whole, parts = filled(101), [filled(4, start, 2) for start in (0, 1)]
    gathered = {name: [getattr(part, name) for part in parts] for name in whole._reductions}
    merged = BitsPerSpike(CELLS)
    for name, reduce in merged._reductions.items():
        setattr(merged, name, reduce(torch.stack(gathered[name])))
    merged._update_count = 1
    for found, expected in zip(merged.compute(), whole.compute(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    added = copy.deepcopy(parts[0])
    added.merge_state(parts[1])
    for found, expected in zip(added.compute(), whole.compute(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_summary_is_the_mean_of_what_is_above_zero():
    metric = BitsPerSpike(CELLS)
    good = torch.tensor([[4.0, 0.0, 1.0], [0.0, 4.0, 0.0]])
    metric.update(0, good.clamp(0.01).log(), good)
    metric.update(1, good[:, :2].flip(0).clamp(0.01).log(), good[:, :2])
    first, second = metric.compute()
    assert (second < 0).all()
    summary = metric.summary()
    assert summary.keys() == {"bps", "bps/session_0", "bps/session_1"}
    assert summary["bps/session_0"].item() == pytest.approx(first.mean().item())
    assert summary["bps/session_1"].item() == 0
    assert summary["bps"].item() == pytest.approx(first.mean().item() / 2)


def test_cells_without_spikes_are_said():
    metric = BitsPerSpike(CELLS)
    spikes = torch.tensor([[1.0, 0.0, 2.0]])
    metric.update(0, torch.tensor([[0.0, 0.0, 0.5]]), spikes)
    metric.update(1, torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.warns(UserWarning, match="1 of 5 cells had no spikes"):
        summary = metric.summary()
    expected = metric.compute()[0][[0, 2]].clamp(min=0).mean()
    assert summary["bps/session_0"].item() == pytest.approx(expected.item())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled(10).summary()


def test_stays_in_double_precision_and_leaves_nothing_in_the_state_dict():
    metric = filled(10).half().bfloat16()
    assert all(each.dtype == torch.float64 for each in metric.compute())
    assert not metric.state_dict()
    metric.reset()
    assert not metric.spikes.any()


@pytest.mark.parametrize("cells", [[], [3, 0]])
def test_cells_must_be_there(cells: list[int]):
    with pytest.raises(ValueError, match="number of cells of each session"):
        BitsPerSpike(cells)


@pytest.mark.parametrize(("session", "cells"), [(2, 3), (-1, 2), (1, 3)])
def test_session_must_exist(session: int, cells: int):
    with pytest.raises(ValueError, match=r"sessions with \[3, 2\] cells"):
        BitsPerSpike(CELLS).update(session, torch.zeros(1, cells), torch.zeros(1, cells))
