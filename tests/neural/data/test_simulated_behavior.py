import numpy as np

from lightning_prune.neural.data.simulated_behavior import (
    BUMPS,
    POSITION,
    PUPIL,
    RUNNING,
    SACCADE,
    SIZED_SACCADE,
    VELOCITY,
    WIDTH,
    raised_cosines,
    simulate_behavior,
)
from lightning_prune.neural.data.simulated_gaze import simulate_gaze

RATE, SHAPE = 120.0, (240, 320)


def recorded(trials=3, frames=400, seed=0):
    rng = np.random.default_rng(seed)
    gazes = [simulate_gaze(np.ones(SHAPE), frames, RATE, 20, rng) for _ in range(trials)]
    return gazes, simulate_behavior(gazes, RATE, SHAPE, rng).astype(np.float64)


def test_raised_cosines_have_their_peaks_and_add_up_to_two():
    peaks = np.exp(np.linspace(np.log(0.02), np.log(0.42), BUMPS)) - 0.02
    np.testing.assert_allclose(np.diag(raised_cosines(peaks)), 1)
    inner = np.linspace(peaks[1], peaks[-2], 50)
    np.testing.assert_allclose(raised_cosines(inner).sum(axis=1), 2)
    assert not raised_cosines(np.array([np.nan, 5.0])).any()


def test_columns_follow_the_gaze():
    gazes, behavior = recorded()
    assert behavior.shape == (1200, WIDTH)
    start = 0
    for gaze in gazes:
        rows, since, size = behavior[start : start + 400], np.nan, 0.0
        start += 400
        for t in range(400):
            if gaze.onset[t]:
                since, size = 0.0, gaze.onset[t]
            before = gaze.position[max(t - 1, 0)]
            velocity = (gaze.position[t] - before) * RATE / 10 / 100
            expected = [*velocity, np.hypot(*velocity)]
            np.testing.assert_allclose(rows[t, VELOCITY], expected, atol=1e-6)
            place = gaze.position[t] / np.array([239, 319]) * 2 - 1
            np.testing.assert_allclose(rows[t, POSITION], place, atol=1e-6)
            bumps = raised_cosines(np.array([since]))[0]
            np.testing.assert_allclose(rows[t, SACCADE], bumps, atol=1e-6)
            np.testing.assert_allclose(rows[t, SIZED_SACCADE], bumps * size / 100, atol=1e-6)
            since += 1 / RATE


def test_history_of_pupil_and_running():
    _, behavior = recorded(frames=1200)
    pupil, running = behavior[:, PUPIL], behavior[:, RUNNING]
    for column, lag in [(1, 30), (2, 60), (3, 120)]:
        np.testing.assert_array_equal(behavior[lag:, PUPIL + column], pupil[:-lag])
    assert (running >= 0).all()
    for index in range(8):
        length = round(0.05 * 2**index * RATE)
        for t in (800, 1500, 3599):
            expected = running[t - length : t].mean()
            np.testing.assert_allclose(behavior[t, RUNNING + 1 + index], expected, atol=1e-5)


def test_pupil_is_standardised_and_slow():
    gazes, _ = recorded(trials=1, frames=10)
    values = [
        simulate_behavior(gazes, RATE, SHAPE, np.random.default_rng(seed))[0, PUPIL]
        for seed in range(400)
    ]
    assert abs(np.mean(values)) < 0.15
    assert 0.9 < np.std(values) < 1.1
    _, behavior = recorded(frames=1200)
    assert np.abs(np.diff(behavior[:, PUPIL])).max() < 0.1
