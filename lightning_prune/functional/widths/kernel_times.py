"""How long a kernel takes at every width, from measurements at some widths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class KernelTimes:
    """Times of a kernel on a grid of widths, read off between them.

    Hardware computes whole blocks of channels, so widths are rounded up to those first; between
    the widths of the grid times are interpolated linearly in both, outside they are those of the
    nearest edge.

    Attributes:
        outputs: Widths at the output that were measured, ascending.
        inputs: The same at the input.
        times: (outputs, inputs) in milliseconds, falling in neither direction (``monotone``).
        block: Channels that are computed at once.

    >>> times = KernelTimes((8, 16), (8, 24), np.array([[1.0, 3.0], [2.0, 4.0]]), block=8)
    >>> times.at(np.array([16.0, 9.0]), np.array([13.0, 8.0])).tolist()
    [3.0, 2.0]
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    times: Values
    block: int

    def at(self, outputs: Values, inputs: Values) -> Values:
        """Return the times at many pairs of widths, in milliseconds; both of the same shape."""
        low_out, part_out = _between(self.outputs, _whole(outputs, self.block, self.outputs))
        low_in, part_in = _between(self.inputs, _whole(inputs, self.block, self.inputs))
        high_out = np.minimum(low_out + 1, len(self.outputs) - 1)
        high_in = np.minimum(low_in + 1, len(self.inputs) - 1)
        near = self.times[low_out, low_in] * (1 - part_in) + self.times[low_out, high_in] * part_in
        far = self.times[high_out, low_in] * (1 - part_in) + self.times[high_out, high_in] * part_in
        found: Values = near * (1 - part_out) + far * part_out
        return found


def monotone(times: Values) -> Values:
    """Return measured times with what noise made faster at more channels levelled out.

    The mean of the largest time at no more channels and of the smallest one at no fewer: the
    nearest monotone table in the largest difference.

    >>> monotone(np.array([[1.0, 3.0, 2.0]])).tolist()
    [[1.0, 2.5, 2.5]]
    """
    up = np.maximum.accumulate(np.maximum.accumulate(times, 0), 1)
    turned = times[::-1, ::-1]
    down = np.minimum.accumulate(np.minimum.accumulate(turned, 0), 1)[::-1, ::-1]
    found: Values = (up + down) / 2
    return found


def grid_of(width: int, block: int, points: int = 8) -> tuple[int, ...]:
    """Return the widths at which a kernel of a dense width is measured, ascending.

    Whole blocks, evenly spread, and the dense width.

    >>> grid_of(64, 8), grid_of(20, 8), grid_of(256, 8, points=4), grid_of(3, 8)
    ((8, 16, 24, 32, 40, 48, 56, 64), (8, 16, 20), (64, 128, 192, 256), (3,))
    """
    if width <= block:
        return (width,)
    step = max(block, -(-width // (points * block)) * block)
    return (*range(step, width, step), width)


def _whole(widths: Values, block: int, grid: Sequence[int]) -> Values:
    whole = np.ceil(widths / block - 1e-9) * block
    # A dense width that is no multiple of the block was measured as it is.
    found: Values = np.minimum(whole, grid[-1])
    return found


def _between(grid: Sequence[int], widths: Values) -> tuple[NDArray[np.int64], Values]:
    """Return the place in the grid below each width, and how far it lies towards the next."""
    points = np.asarray(grid, dtype=np.float64)
    place = np.clip(np.searchsorted(points, widths, side="right") - 1, 0, len(points) - 1)
    above = np.minimum(place + 1, len(points) - 1)
    span = np.where(above > place, points[above] - points[place], 1.0)
    part: Values = np.clip((widths - points[place]) / span, 0.0, 1.0)
    return place, part
