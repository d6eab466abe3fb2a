import itertools

import numpy as np
import pytest
import torch

from lightning_prune.neural.functional.paired_difference import paired_difference


def test_interval_equals_all_resamples_of_three_cells():
    before = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    change = np.array([-0.3, 0.1, 0.5])
    found = paired_difference(
        before, before + torch.tensor(change), confidence=0.8, resamples=50_000
    )
    means = np.array([np.mean(draw) for draw in itertools.product(change, repeat=3)])
    assert found.mean == pytest.approx(change.mean())
    assert found.low == pytest.approx(np.quantile(means, 0.1), abs=1e-9)
    assert found.high == pytest.approx(np.quantile(means, 0.9), abs=1e-9)
    assert (found.lost, found.cells) == (1, 3)
    np.testing.assert_allclose(found.difference, change)


def test_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = torch.tensor(rng.normal(0.1, 1, 60))
        found = paired_difference(torch.zeros(60), values, resamples=500)
        covered += found.low <= 0.1 <= found.high
    assert 180 <= covered <= 199


def test_cells_without_a_value_are_left_out():
    before = torch.tensor([1.0, torch.nan, 0.5, 1.0])
    after = torch.tensor([0.5, 1.0, -torch.inf, 1.5])
    found = paired_difference(before, after)
    assert found.difference.isnan().tolist() == [False, True, True, False]
    assert (found.mean, found.lost, found.cells) == (0.0, 1, 2)
    nothing = paired_difference(before[1:2], after[1:2])
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert (nothing.lost, nothing.cells) == (0, 0)


def test_many_cells_are_drawn_in_blocks_and_the_seed_decides():
    values = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    first = paired_difference(torch.zeros(3000), values, resamples=1000, seed=3)
    again = paired_difference(torch.zeros(3000), values, resamples=1000, seed=3)
    assert first[1:] == again[1:]
    error = values.std().item() / 3000**0.5
    assert first.low == pytest.approx(first.mean - 1.96 * error, abs=0.2 * error)
    assert first.high == pytest.approx(first.mean + 1.96 * error, abs=0.2 * error)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"after": torch.zeros(2)}, "the same cells"),
        ({"confidence": 95}, r"outside \(0, 1\)"),
        ({"resamples": 0}, "at least 1"),
    ],
)
def test_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        paired_difference(**{"before": torch.zeros(3), "after": torch.zeros(3), **arguments})
