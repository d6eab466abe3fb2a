"""Times between measured widths, against SciPy's interpolation and brute force."""

import itertools

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from lightning_prune.functional.widths.kernel_times import KernelTimes, grid_of, monotone


@pytest.mark.parametrize("seed", range(5))
def test_between_widths_times_are_those_of_scipy(seed):
    random = np.random.default_rng(seed)
    outputs, inputs = grid_of(96, 8, 5), grid_of(44, 8, 4)
    times = random.random((len(outputs), len(inputs)))
    table = KernelTimes(outputs, inputs, times, block=8)
    reference = RegularGridInterpolator((outputs, inputs), times)
    wanted, given = random.integers(outputs[0], 97, 50), random.integers(inputs[0], 45, 50)

    def whole(width, most):
        return min(-(-width // 8) * 8, most)

    points = [(whole(o, 96), whole(i, 44)) for o, i in zip(wanted, given, strict=True)]
    found = table.at(wanted.astype(float), given.astype(float))
    np.testing.assert_allclose(found, reference(points), rtol=1e-12)


def test_outside_the_grid_times_are_those_of_the_edge():
    table = KernelTimes((16, 32), (1,), np.array([[1.0], [2.0]]), block=8)
    assert table.at(np.array([2.0, 16.0, 32.0]), np.ones(3)).tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("seed", range(10))
def test_monotone_tables_are_nearest_in_the_largest_difference(seed):
    times = np.random.default_rng(seed).random((3, 4))
    found = monotone(times)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()
    # No monotone table is nearer than half the largest drop between comparable places.
    drop = 0.0
    for (a, b), (c, d) in itertools.product(np.ndindex(3, 4), repeat=2):
        if a <= c and b <= d:
            drop = max(drop, times[a, b] - times[c, d])
    assert np.abs(found - times).max() == pytest.approx(drop / 2)
    rising = np.sort(np.sort(times, 0), 1)
    np.testing.assert_allclose(monotone(rising), rising)


@pytest.mark.parametrize("width", [1, 3, 8, 9, 20, 64, 100, 512, 1000])
@pytest.mark.parametrize("points", [2, 4, 8])
def test_grids_are_whole_blocks_up_to_the_dense_width(width, points):
    grid = grid_of(width, 8, points)
    assert grid[-1] == width
    assert list(grid) == sorted(set(grid))
    assert all(each % 8 == 0 for each in grid[:-1])
    assert len(grid) <= points + 1
