"""Did the cells lose by pruning? The same cells, before and after."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class PairedDifference(NamedTuple):
    """What became of the value of each cell.

    Attributes:
        difference: (N,) float64, after minus before; NaN where either is NaN or infinite.
        mean: Mean over the cells that have one.
        low: Lower end of the interval of the mean.
        high: Upper end of the interval of the mean.
        lost: Cells whose value fell.
        cells: Cells that have a difference.
    """

    difference: Tensor
    mean: float
    low: float
    high: float
    lost: int
    cells: int


def paired_difference(
    before: Tensor,
    after: Tensor,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Compare the cells of a pruned model with those of the dense one, with a bootstrap interval.

    The interval of the mean difference is the percentile interval over random draws of the cells
    with replacement: it says how much the mean depends on which cells were recorded, not on the
    samples or on the training.

    Args:
        before: (N,) value of each cell, for example bits per spike of the dense model.
        after: (N,) value of the same cells afterwards.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Number of draws, at least 1.
        seed: Of the draws.

    Returns:
        the differences and their summary; NaN in all of it where no cell has a difference.

    Raises:
        ValueError: shapes differ or an argument is out of range.

    Source: B. Efron and R. J. Tibshirani, 1993, An Introduction to the Bootstrap, chapter 13,
    DOI 10.1201/9780429246593.

    >>> found = paired_difference(torch.tensor([1.0, 0.5, 0.2]), torch.tensor([0.9, 0.4, 0.1]))
    >>> round(found.mean, 6), round(found.low, 6), found.lost, found.cells
    (-0.1, -0.1, 3, 3)
    """
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(
            f"values of shape {tuple(before.shape)} and {tuple(after.shape)}: pass one value for "
            "each cell, the same cells in the same order"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is outside (0, 1): pass for example 0.95")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: pass at least 1")
    difference = after.detach().cpu().double() - before.detach().cpu().double()
    difference = torch.where(difference.isfinite(), difference, torch.nan)
    values = difference[difference.isfinite()].numpy()
    if not len(values):
        return PairedDifference(difference, np.nan, np.nan, np.nan, 0, 0)
    rng = np.random.default_rng(seed)
    # a block at a time: thousands of cells times ten thousand draws would not fit
    block = max(1, 2**20 // len(values))
    means = [
        values[rng.integers(0, len(values), (min(block, resamples - start), len(values)))].mean(1)
        for start in range(0, resamples, block)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return PairedDifference(
        difference,
        float(values.mean()),
        float(low),
        float(high),
        int((values < 0).sum()),
        len(values),
    )
