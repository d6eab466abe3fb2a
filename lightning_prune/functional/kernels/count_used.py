"""Kernel that counts used channels, and reads of each only as much as decides.

Outputs and counts are given by address: a call with arrays would be compiled again for each order
of dimensions, and would take longer than the arithmetic.
"""

from typing import Any

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from lightning_prune.functional.kernels.row_column_sums import _fast, _pointer

Sums = NDArray[np.float64]
_FIRST = 16  # values in two lines of cache mostly decide already


@_fast
def _sum_planes(values: Any, limit: float, sums: Sums) -> None:
    """Sum (samples, C, places), one channel after the other."""
    samples, channels, places = values.shape
    for c in range(channels):
        total = 0.0
        s = samples
        while s > 0 and total <= limit:
            s -= 1  # from the last one: it was written last, and may still be in the cache
            place, length = 0, _FIRST
            while place < places and total <= limit:
                end = min(places, place + length)
                length *= 2
                part = np.float32(0)
                for k in range(place, end):
                    part += abs(values[s, c, k])
                total += float(part)
                place = end
        sums[c] = total


@_fast
def _sum_rows(values: Any, limit: float, sums: Sums) -> None:
    """Sum (rows, C), all channels of a row at once."""
    row, channels = values.shape
    sums[:] = 0
    length, low = _FIRST, True
    while row > 0 and low:
        first = max(0, row - length)
        for r in range(first, row):
            for c in range(channels):
                sums[c] += abs(values[r, c])
        row = first
        length *= 2
        low = False
        for c in range(channels):
            low |= sums[c] <= limit


@_fast
def count_exceeding(
    address: int,
    samples: int,
    channels: int,
    places: int,
    surely_not: float,
    surely: float,
    counts: int,
) -> bool:
    """Count the channels whose sum of magnitudes exceeds a bound, NaN too, unless one is doubtful.

    The float32 values at the address are (samples, channels, places), one after the other; the
    counts (channels,) int64. A sum of at least ``surely_not`` and at most ``surely`` is doubtful,
    but for 0: then nothing is counted.

    Returns:
        Whether the channels were counted.
    """
    sums = np.empty(channels)
    if places == 1:
        _sum_rows(carray(_pointer(address), (samples, channels), np.float32), surely, sums)
    else:
        shape = (samples, channels, places)
        _sum_planes(carray(_pointer(address), shape, np.float32), surely, sums)
    for c in range(channels):
        if sums[c] > 0 and sums[c] >= surely_not and sums[c] <= surely:
            return False
    numbers = carray(_pointer(counts), (channels,), np.int64)
    for c in range(channels):
        numbers[c] += not sums[c] <= surely
    return True
