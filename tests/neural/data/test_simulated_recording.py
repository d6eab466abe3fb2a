from dataclasses import replace

import numpy as np
import pytest

from lightning_prune.neural.data.checks import check_session
from lightning_prune.neural.data.simulated_photographs import photographs
from lightning_prune.neural.data.simulated_recording import (
    FRAME_RATE,
    RecordingOptions,
    simulate_recording,
    watch,
)

OPTIONS = RecordingOptions(cells=6, pixels=31, trials=10, repeated_trials=2, repeats=3, photos=4)
FRAMES, TRIALS = 300, 16


@pytest.fixture(scope="module")
def recording():
    return simulate_recording(OPTIONS)


def test_watching_interpolates_between_pixels():
    photo = photographs(1)[0]
    position = np.array([[100.0, 150.0], [60.25, 80.5], [16.0, 302.9]])
    movie = watch(photo, position, 31)
    for t, (row, column) in enumerate(position):
        for i, j in [(0, 0), (3, 30), (30, 17)]:
            y, x = row - 15 + i, column - 15 + j
            top, left = int(y), int(x)
            below, right = y - top, x - left
            corners = photo[top : top + 2, left : left + 2].astype(float)
            weights = np.outer([1 - below, below], [1 - right, right])
            assert abs(float(movie[t, i, j]) - (corners * weights).sum()) <= 0.51


def test_session_is_sound_and_everything_fits_together(recording):
    session = recording.session
    check_session(session)
    assert len(session) == TRIALS * FRAMES
    assert session.stimulus.shape == (TRIALS * FRAMES, 31, 31)
    assert (session.cells, session.behavior.shape[1], session.frame_rate) == (6, 42, 120.0)
    photos = photographs(4)
    for trial, (photo, gaze) in enumerate(zip(recording.photo, recording.gazes, strict=True)):
        rows = np.flatnonzero(session.trial == trial)
        assert len(rows) == FRAMES
        movie = watch(photos[photo], gaze.position, 31)
        np.testing.assert_array_equal(session.stimulus[rows], movie)
        np.testing.assert_array_equal(session.labels["photo"][rows], photo)
        np.testing.assert_array_equal(session.labels["eye"][rows], gaze.saccade)
        rate = recording.population.rate(movie, session.behavior[rows])
        np.testing.assert_allclose(session.rate[rows] * FRAME_RATE, rate, rtol=1e-5)
    assert 0.04 < session.labels["eye"].mean() < 0.15


def test_spikes_are_poisson_with_the_true_rates(recording):
    spikes, rate = recording.session.spikes.astype(float), recording.session.rate.astype(float)
    total = rate.sum(axis=0)
    np.testing.assert_array_less(np.abs(spikes.sum(axis=0) - total), 4 * np.sqrt(total))
    # variance of each count equals its rate
    count = rate.size
    excess = ((spikes - rate) ** 2 - rate).sum()
    assert abs(excess) < 4 * np.sqrt(count * np.mean(rate + 2 * rate**2))
    hertz = rate.mean(axis=0) * FRAME_RATE
    assert (hertz > 5).all()
    assert (hertz < 41).all()


def test_repeated_trials_show_the_same(recording):
    session = recording.session
    ids, counts = np.unique(session.repeat, return_counts=True)
    assert ids.tolist() == list(range(-1, 2 * FRAMES))
    assert counts.tolist() == [10 * FRAMES] + [3] * 2 * FRAMES
    for instant in (0, 299, 300, 450):
        first, *others = np.flatnonzero(session.repeat == instant)
        for other in others:
            np.testing.assert_array_equal(session.stimulus[first], session.stimulus[other])
            assert (session.behavior[first, :29] == session.behavior[other, :29]).all()
            assert (session.behavior[first, 29] != session.behavior[other, 29]).all()


def test_the_options_decide_everything(recording):
    assert simulate_recording(replace(OPTIONS)) is recording
    again = simulate_recording.__wrapped__(OPTIONS)
    for found, expected in zip(again.session.arrays(), recording.session.arrays(), strict=True):
        np.testing.assert_array_equal(found, expected)
    for change in ({"seed": 1}, {"session": 1}):
        other = simulate_recording.__wrapped__(replace(OPTIONS, **change))
        assert not np.array_equal(other.population.spatial, recording.population.spatial)
        assert not np.array_equal(other.session.stimulus, recording.session.stimulus)
        assert not np.array_equal(other.session.spikes, recording.session.spikes)


def test_arrays_are_shared_and_cannot_be_written_to(recording):
    for array in recording.session.arrays():
        assert not array.flags.writeable


def test_without_repeats():
    session = simulate_recording.__wrapped__(replace(OPTIONS, repeated_trials=0)).session
    assert len(session) == 10 * FRAMES
    assert (session.repeat == -1).all()
