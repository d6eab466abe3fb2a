"""The knee of a rising, flattening curve."""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from kneed import KneeLocator
from numpy.typing import NDArray

# Neighbouring points of a parabola with a knee differ by more than 1e-8 even at 510 points, and
# rounding by less than 1e-13.
_TIE = 1e-10

Interpolation = Literal["polynomial", "interp1d"]


def find_knee(
    x: Sequence[int],
    y: Sequence[float],
    interpolation: Interpolation = "polynomial",
    sensitivity: float = 1.0,
) -> int | None:
    """Find the knee of a concave, increasing curve by Kneedle.

    Args:
        x: Positions in increasing order, the numbers of clusters.
        y: Values there, the MSS.
        interpolation: "polynomial" smooths by a polynomial of degree 2, "interp1d" goes through
            every point. A parabola that rises to the end is farthest above its chord in the very
            middle, so with an even number of points two are equally far: the first is taken,
            where Kneedle leaves it to rounding and so to the machine.
        sensitivity: S of Kneedle: larger waits longer before a knee is called.

    Returns:
        The x of the knee, or None where there is none: fewer than three points, a straight line,
        or a constant curve (where Kneedle's own answer is decided by rounding noise).

    Raises:
        ValueError: If lengths differ, a value is NaN or infinite, or the interpolation is unknown.

    Source: Satopaa, Albrecht, Irwin, Raghavan 2011, "Finding a 'Kneedle' in a haystack",
    doi:10.1109/ICDCSW.2011.20.

    >>> find_knee([2, 3, 4, 5, 6, 7, 8], [0.0, 0.5, 0.7, 0.8, 0.85, 0.88, 0.9])
    5
    >>> find_knee([2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4]) is None
    True
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} positions and {len(y)} values: pass one value for each")
    if interpolation not in ("polynomial", "interp1d"):
        raise ValueError(f'interpolation={interpolation!r}: choose "polynomial" or "interp1d"')
    values = [float(value) for value in y]
    if not all(abs(value) < float("inf") for value in values):
        raise ValueError("the curve holds NaN or infinite values: it has no knee to look for")
    if len(values) < 3 or max(values) - min(values) <= 1e-12 * max(map(abs, values)):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No knee/elbow found", category=UserWarning)
        locator = KneeLocator(
            [float(position) for position in x],
            values,
            S=sensitivity,
            curve="concave",
            direction="increasing",
            interp_method=interpolation,
            polynomial_degree=2,
        )
    if locator.knee is None:
        return None
    if interpolation == "polynomial":
        return x[_first_of_tied(locator.y_difference, x.index(int(locator.knee)))]
    return int(locator.knee)


def _first_of_tied(difference: NDArray[np.float64], knee: int) -> int:
    """Return the first of the positions that are as far above the diagonal as the knee."""
    while knee > 0 and difference[knee - 1] >= difference[knee] - _TIE:
        knee -= 1
    return knee
