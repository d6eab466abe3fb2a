"""How many different profiles of separability a layer's channels have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_prune.functional.selection.dissimilarity import dissimilarity

Array = NDArray[np.float64]
_ALIKE = 0.02


@dataclass(frozen=True)
class Profiles:
    """A number of different profiles.

    Attributes:
        count: How many there are, 1..C.
        distance: Root mean square difference, over pairs of classes, up to which channels have the
            same profile, in [0, 2].
    """

    count: int
    distance: float


def count_profiles(matrix: Tensor, noise: Sequence[Tensor] | None = None) -> Profiles:
    r"""Count the different rows of a separability matrix.

    .. math:: \Delta_{ij}(S) = \sqrt{\frac{1}{P} \sum_p (S_{ip} - S_{jp})^2}, \qquad
        d = \max_n \max_{i, j} \Delta_{ij}(N_n)

    Complete linkage merges rows into clusters whose members differ by at most d, the most by
    which noise alone sets channels apart; the count is that of the clusters. Profiles that are
    nearer to one another are one, so that few objects, or few classes, show fewer of them.

    Without noise, d is where the heights of the merges jump most, as a ratio, those below 0.02 (a
    hundredth of the range) counting as 0.02: profiles that noise blurs little are found; whether
    all channels are alike or all different, rows that are more than that apart cannot say.

    Args:
        matrix: (C, P) separability S, in [0, 2].
        noise: (C, P) matrices N, each of the errors that estimates of S have, such as half the
            difference of two halves of the objects (:func:`estimation_noise`). Columns that hold
            NaN have no estimate and are left out. None: there is none.

    Raises:
        ValueError: the matrix has no finite rows, or the noise is of another shape.

    Source: T. Sorensen, 1948, complete linkage. The distance is the project's own: with labels
    dealt out at random instead, errors are those of channels that separate nothing, and far
    smaller than those of channels that do (docs/log.md).

    >>> profiles = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]).repeat(4, 1)
    >>> errors = torch.linspace(-0.01, 0.01, 12)[:, None]
    >>> count_profiles(profiles + errors)
    Profiles(count=3, distance=0.02)
    >>> count_profiles(profiles + errors, [errors.flip(0).repeat(1, 2)]).count
    3
    """
    if matrix.dim() != 2 or 0 in matrix.shape or not bool(torch.isfinite(matrix).all()):
        raise ValueError(
            f"matrix of shape {tuple(matrix.shape)}: pass finite separability, (channels, class "
            "pairs)"
        )
    if noise is None:
        heights = _heights(matrix)
        distance = _before_the_jump(heights)
        return Profiles(1 + int((heights > distance).sum()), distance)
    wrong = [tuple(one.shape) for one in noise if one.shape != matrix.shape]
    if wrong or not noise:
        raise ValueError(
            f"noise of shapes {wrong} for a matrix of shape {tuple(matrix.shape)}: pass at least "
            "one matrix of the same shape, or None"
        )
    known = ~torch.stack([one.isnan().any(0) for one in noise]).any(0).cpu()
    if not bool(known.any()):
        return Profiles(1, 2.0)  # nothing is known that could set two channels apart
    distance = max(float(_apart(one.cpu()[:, known]).max()) for one in noise)
    heights = _heights(matrix.cpu()[:, known])
    return Profiles(1 + int((heights > distance).sum()), distance)


def estimation_noise(first: Tensor, second: Tensor) -> Tensor:
    r"""Return errors as large as those of an estimate from all objects.

    .. math:: N = \frac{S_1 - S_2}{2}, \qquad
        var(S_1 - S_2) = 2\, var(S_{n/2}) = 4\, var(S_n)

    as the variance falls with the number n of objects. What both have in common, their bias too,
    is gone.

    Args:
        first: (C, P) separability S_1, estimated from half of the objects.
        second: (C, P) separability S_2, estimated from the other half.

    >>> estimation_noise(torch.tensor([[1.2]]), torch.tensor([[1.0]]))
    tensor([[0.1000]])
    """
    return (first - second) / 2


def _apart(rows: Tensor) -> Array:
    """Return the rms difference of every pair of (C, P) rows, (C, C)."""
    return np.asarray(dissimilarity(rows).numpy() / rows.shape[1] ** 0.5, dtype=np.float64)


def _heights(rows: Tensor) -> Array:
    """Return the differences at which complete linkage merges (C, P) rows, (C - 1,) ascending."""
    from scipy.cluster.hierarchy import linkage  # not above: few runs count
    from scipy.spatial.distance import squareform

    if len(rows) == 1:
        return np.zeros(0)
    merges = linkage(squareform(_apart(rows), checks=False), "complete")
    return np.asarray(merges[:, 2], dtype=np.float64)


def _before_the_jump(heights: Array) -> float:
    """Return the height after which the next is most times as high; the last one on ties."""
    steps = np.maximum(np.concatenate([[_ALIKE], heights]), _ALIKE)
    if steps[-1] == _ALIKE:
        return _ALIKE
    jumps = steps[1:] / steps[:-1]
    return float(steps[len(jumps) - 1 - int(jumps[::-1].argmax())])
