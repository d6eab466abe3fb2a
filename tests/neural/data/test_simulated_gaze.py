import numpy as np
import pytest

from lightning_prune.neural.data.simulated_gaze import (
    AMPLITUDE,
    FIXATION,
    PIXELS_PER_DEGREE,
    saccade_seconds,
    simulate_gaze,
)

RATE, MARGIN, SHAPE = 120.0, 26.5, (240, 320)


@pytest.fixture(scope="module")
def gaze():
    return simulate_gaze(np.ones(SHAPE), 12_000, RATE, MARGIN, np.random.default_rng(0))


def runs(flags):
    """First and last frame of each run of equal values, and the value."""
    edges = np.flatnonzero(np.diff(flags.astype(int))) + 1
    return [(part[0], part[-1], flags[part[0]]) for part in np.split(np.arange(len(flags)), edges)]


def test_stays_inside(gaze):
    assert (gaze.position >= MARGIN).all()
    assert (gaze.position <= np.array(SHAPE) - 1 - MARGIN).all()


def test_fixations_and_saccades_last_as_long_as_said(gaze):
    fixations, saccades = [], []
    for first, last, moving in runs(gaze.saccade)[1:-1]:
        if not moving:
            fixations.append((last - first + 1) / RATE)
            continue
        start, end = gaze.position[first - 1], gaze.position[last]
        amplitude = np.hypot(*(end - start))
        assert gaze.onset[first] == pytest.approx(amplitude)
        assert AMPLITUDE[0] <= amplitude <= AMPLITUDE[1]
        duration = saccade_seconds(amplitude / PIXELS_PER_DEGREE) * RATE
        assert last - first + 1 == max(2, round(duration))
        saccades.append(amplitude)
    half = 0.5 / RATE
    assert FIXATION[0] - half <= min(fixations) < 0.2
    assert 0.45 < max(fixations) <= FIXATION[1] + half
    assert np.mean(fixations) == pytest.approx(np.mean(FIXATION), abs=0.02)
    assert np.count_nonzero(gaze.onset) in range(len(saccades), len(saccades) + 2)


def test_saccades_move_with_minimum_jerk(gaze):
    first, last, _ = next(run for run in runs(gaze.saccade) if run[2] and run[1] - run[0] >= 4)
    start, end = gaze.position[first - 1], gaze.position[last]
    part = np.arange(1, last - first + 2) / (last - first + 1)
    share = 10 * part**3 - 15 * part**4 + 6 * part**5
    expected = start + share[:, None] * (end - start)
    np.testing.assert_allclose(gaze.position[first : last + 1], expected)


def test_drift_is_a_slow_random_walk(gaze):
    steps = np.diff(gaze.position, axis=0)
    still = ~gaze.saccade[1:] & ~gaze.saccade[:-1]
    degrees = steps[still] / PIXELS_PER_DEGREE
    # mean square of a random walk along one axis: 2 D t
    assert np.mean(degrees**2) == pytest.approx(2 * 0.1 / RATE, rel=0.05)


def test_structure_attracts():
    interest = np.zeros(SHAPE)
    interest[:, 160:] = 1.0
    gaze = simulate_gaze(interest, 6000, RATE, MARGIN, np.random.default_rng(1))
    even = simulate_gaze(np.ones(SHAPE), 6000, RATE, MARGIN, np.random.default_rng(1))
    assert (gaze.position[:, 1] > 155).mean() > 0.9 > (even.position[:, 1] > 155).mean()
