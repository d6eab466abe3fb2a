import math

import numpy as np
import pytest

from lightning_prune.neural.data.simulated_behavior import SACCADE, raised_cosines
from lightning_prune.neural.data.simulated_population import HISTORY, TAPS, draw_population

PIXELS, WIDTH = 31, 42


@pytest.fixture(scope="module")
def cells():
    return draw_population(15, PIXELS, WIDTH, np.random.default_rng(0))


def scene(frames=60, seed=0):
    rng = np.random.default_rng(seed)
    movie = rng.integers(0, 256, (frames, PIXELS, PIXELS), dtype=np.uint8)
    return movie, rng.normal(size=(frames, WIDTH)).astype(np.float32) * 0.3


def direct(cells, index, movie, behavior):
    """The rate of one cell, sum by sum."""
    frames = len(movie)
    rectified = []
    for t in range(frames):
        drives = []
        for filters in cells.spatial:
            total = 0.0
            for tau in range(min(TAPS, t + 1)):
                picture = (movie[t - tau].astype(float) - 127) / 255
                total += cells.temporal[tau, index] * (filters[index] * picture).sum()
            drives.append(total)
        drive = math.hypot(*drives) if cells.kind[index] == "complex" else drives[0]
        z = max(drive - cells.threshold[index], 0.0)
        rectified.append(z / (1 + z))
    weights = [math.exp(-j / 3) for j in range(9)]
    rates = []
    for t in range(frames):
        past = sum(weights[j - 1] / sum(weights) * rectified[t - j] for j in range(1, 10) if t >= j)
        gain = math.exp(
            sum(float(b) * w for b, w in zip(behavior[t], cells.gain[:, index], strict=True))
        )
        response = gain * rectified[t] / (1 + cells.adaptation[index] * past)
        rates.append(cells.offset[index] + cells.amplitude[index] * response)
    return np.array(rates)


@pytest.mark.parametrize("kind", ["simple", "complex", "centre"])
def test_rate_equals_a_direct_computation(cells, kind):
    movie, behavior = scene()
    index = cells.kind.index(kind)
    found = cells.rate(movie, behavior)
    assert found.shape == (60, 15)
    np.testing.assert_allclose(found[:, index], direct(cells, index, movie, behavior), rtol=1e-4)
    assert found[:, index].std() > 0.1


def test_a_rate_depends_on_the_frames_of_one_window(cells):
    movie, behavior = scene()
    other, _ = scene(seed=1)
    last = len(movie) - 1
    mixed = np.concatenate([other[: last + 1 - HISTORY], movie[last + 1 - HISTORY :]])
    whole, part = cells.rate(movie, behavior), cells.rate(mixed, behavior)
    np.testing.assert_allclose(part[last], whole[last], rtol=1e-6)
    assert HISTORY == 25
    assert not np.allclose(part[last - 9], whole[last - 9], rtol=1e-6)


def test_filters(cells):
    assert {*cells.kind} == {"simple", "complex", "centre"}
    energy = (cells.spatial**2).sum(axis=(2, 3))
    np.testing.assert_allclose(energy[0], 1)
    is_complex = np.array(cells.kind) == "complex"
    assert (energy[1, ~is_complex] == 0).all()
    assert (energy[1, is_complex] > 0.2).all()
    # Gabors do not see a uniform field, centre-surround cells weakly
    sums = np.abs(cells.spatial.sum(axis=(2, 3)))
    is_centre = np.array(cells.kind) == "centre"
    assert sums[:, ~is_centre].max() < 1e-9
    assert (sums[0, is_centre] > 0.1).all()
    # all of a filter lies within the movie
    rim = np.ones((PIXELS, PIXELS), bool)
    rim[2:-2, 2:-2] = False
    assert (cells.spatial[0] ** 2 * rim).sum(axis=(1, 2)).max() < 0.05


def test_temporal_kernels_are_biphasic(cells):
    assert cells.temporal.shape == (TAPS, 15)
    np.testing.assert_allclose((cells.temporal**2).sum(axis=0), 1)
    assert (cells.temporal.argmax(axis=0) < cells.temporal.argmin(axis=0)).all()
    assert (cells.temporal.min(axis=0) < -0.02).all()
    assert (np.abs(cells.temporal[-1]) < 0.02).all()


def test_saccades_suppress_and_then_enhance(cells):
    log_gain = raised_cosines(np.array([0.02, 0.11])) @ cells.gain[SACCADE]
    assert (log_gain[0] < 0).all()
    assert (log_gain[1] > 0).all()
