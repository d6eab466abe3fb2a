"""What is measured of a simulated animal besides its cells: 42 numbers a frame."""

from collections.abc import Sequence

import numpy as np

from lightning_prune.neural.data.simulated_gaze import PIXELS_PER_DEGREE, Gaze

BUMPS = 12
_HISTORY = 8
# Columns of the behaviour, in order.
VELOCITY, POSITION = slice(0, 3), slice(3, 5)
SACCADE, SIZED_SACCADE = slice(5, 5 + BUMPS), slice(5 + BUMPS, 5 + 2 * BUMPS)
PUPIL, RUNNING = 5 + 2 * BUMPS, 9 + 2 * BUMPS
WIDTH = 42
_LAST_BUMP = 0.4  # seconds after the onset of a saccade
_OFFSET = 0.02  # seconds, keeps the logarithm of 0 finite
_FAST = 100.0  # degrees per second


def bump_seconds(count: int = BUMPS, last: float = _LAST_BUMP) -> np.ndarray:
    """Return the times of the peaks of `raised_cosines`, (count,) seconds."""
    seconds: np.ndarray = np.geomspace(_OFFSET, last + _OFFSET, count) - _OFFSET
    return seconds


def raised_cosines(seconds: np.ndarray, count: int = BUMPS, last: float = _LAST_BUMP) -> np.ndarray:
    """Return overlapping raised cosines over a time, evenly spaced on a logarithmic scale.

    Args:
        seconds: (T,) times, not negative; NaN gives zeros.
        count: Number of cosines, at least 2.
        last: Where the last one has its peak, in seconds; the first has it at 0.

    Returns:
        (T, count) float64 in [0, 1]; they add up to 2 except near the first and the last peak.

    Source: J. W. Pillow et al., 2008, Nature 454, 995-999, DOI 10.1038/nature07140.

    >>> raised_cosines(np.array([0.0, 0.4, np.nan]), 2).round(3).tolist()
    [[1.0, 0.5], [0.5, 1.0], [0.0, 0.0]]
    """
    place = np.log(np.nan_to_num(seconds, nan=np.inf) + _OFFSET)
    peaks = np.log(bump_seconds(count, last) + _OFFSET)
    distance = np.abs(place[:, None] - peaks) / (peaks[1] - peaks[0]) * np.pi / 2
    bumps: np.ndarray = 0.5 * (1 + np.cos(np.minimum(distance, np.pi)))
    return bumps


def simulate_behavior(
    gazes: Sequence[Gaze], frame_rate: float, size: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Describe the animal in every frame.

    Columns: eye velocity (vertical, horizontal, speed; 100 degrees per second), gaze (-1 to 1 over
    the photograph), 12 raised cosines since the last saccade of the trial, the same times the
    saccade's amplitude (10 degrees), pupil and its values 0.25, 0.5 and 1 s ago (standard
    deviations), running speed and its means in 8 growing windows of the past (standard deviations
    of the speed while running).

    Args:
        gazes: One for each trial.
        frame_rate: In Hz.
        size: Height and width of the photographs, in pixels.
        rng: Source of pupil and running speed.

    Returns:
        (T, 42) float32, T frames over all trials.
    """
    total = sum(len(gaze.position) for gaze in gazes)
    result = np.zeros((total, WIDTH))
    start = 0
    for gaze in gazes:
        rows = result[start : start + len(gaze.position)]
        start += len(rows)
        velocity = np.diff(gaze.position, axis=0, prepend=gaze.position[:1])
        velocity *= frame_rate / PIXELS_PER_DEGREE / _FAST
        rows[:, VELOCITY] = np.column_stack([velocity, np.hypot(*velocity.T)])
        rows[:, POSITION] = gaze.position / (np.array(size) - 1) * 2 - 1
        since, amplitude = _since_saccade(gaze.onset, frame_rate)
        rows[:, SACCADE] = raised_cosines(since)
        rows[:, SIZED_SACCADE] = rows[:, SACCADE] * amplitude[:, None] / PIXELS_PER_DEGREE / 10
    lags = [round(seconds * frame_rate) for seconds in (0.0, 0.25, 0.5, 1.0)]
    pupil = _slow_noise(total + lags[-1], 2.0 * frame_rate, rng)
    result[:, PUPIL : PUPIL + 4] = np.column_stack([_ago(pupil, lag, total) for lag in lags])
    longest = round(0.05 * 2 ** (_HISTORY - 1) * frame_rate)
    running = np.maximum(_slow_noise(total + longest, 3.0 * frame_rate, rng), 0.0)
    result[:, RUNNING] = _ago(running, 0, total)
    sums = np.concatenate([[0.0], np.cumsum(running)])
    for index in range(_HISTORY):
        length = round(0.05 * 2**index * frame_rate)
        ends = np.arange(longest, longest + total)
        result[:, RUNNING + 1 + index] = (sums[ends] - sums[ends - length]) / length
    return result.astype(np.float32)


def _since_saccade(onset: np.ndarray, frame_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds since the last onset (NaN before the first) and the saccade's amplitude."""
    frames = np.arange(len(onset))
    last = np.maximum.accumulate(np.where(onset > 0, frames, -1))
    known = last >= 0
    return (
        np.where(known, (frames - last) / frame_rate, np.nan),
        np.where(known, onset[last], 0.0),
    )


def _slow_noise(count: int, frames: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise smoothed over so many frames, mean 0, standard deviation 1."""
    width = max(1, round(frames))
    kernel = np.hanning(2 * width + 1)
    kernel /= np.sqrt((kernel**2).sum())
    white = rng.normal(size=count + 2 * width)
    size = len(white) + len(kernel) - 1
    smooth = np.fft.irfft(np.fft.rfft(white, size) * np.fft.rfft(kernel, size), size)
    result: np.ndarray = smooth[2 * width : 2 * width + count]
    return result


def _ago(values: np.ndarray, lag: int, count: int) -> np.ndarray:
    end = len(values) - lag
    return values[end - count : end]
