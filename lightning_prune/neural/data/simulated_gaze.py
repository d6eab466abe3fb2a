"""Where a simulated eye looks: fixations with drift, and saccades between them."""

from dataclasses import dataclass

import numpy as np

PIXELS_PER_DEGREE = 10.0
FIXATION = (0.15, 0.5)  # seconds
AMPLITUDE = (15.0, 100.0)  # pixels
_DRIFT = 0.1  # diffusion constant of the drift along one axis, square degrees per second
_CANDIDATES = 8


@dataclass(frozen=True, eq=False)
class Gaze:
    """The eye during one trial of T frames.

    Attributes:
        position: (T, 2) row and column looked at, in pixels of the photograph.
        saccade: (T,) bool, True while a saccade is under way.
        onset: (T,) amplitude in pixels at the first frame of a saccade, elsewhere 0.
    """

    position: np.ndarray
    saccade: np.ndarray
    onset: np.ndarray


def saccade_seconds(degrees: float) -> float:
    """Return the duration of a saccade, the main sequence: 21 ms and 2.2 ms a degree.

    Source: R. H. S. Carpenter, 1988, Movements of the Eyes, 2nd edition, Pion, London.

    >>> saccade_seconds(10.0)
    0.043
    """
    return (21.0 + 2.2 * degrees) / 1000.0


def simulate_gaze(
    interest: np.ndarray, frames: int, frame_rate: float, margin: float, rng: np.random.Generator
) -> Gaze:
    """Simulate a gaze over one photograph.

    Fixations last 150-500 ms, uniformly, during which the eye drifts as a random walk. Saccades
    move with minimum jerk and go to one of eight random places 15-100 pixels away, chosen in
    proportion to the squared structure there.

    Args:
        interest: (H, W) how interesting each pixel is, not negative.
        frames: T.
        frame_rate: In Hz.
        margin: Distance kept from the borders, in pixels.
        rng: Source of everything random.

    Returns:
        the gaze in T frames.
    """
    low = np.array([margin, margin])
    high = np.array(interest.shape) - 1 - margin
    position = np.empty((frames, 2))
    saccade, onset = np.zeros(frames, dtype=bool), np.zeros(frames)
    here = _target(interest, rng.uniform(low, high, (_CANDIDATES, 2)), rng)
    now = 0
    while now < frames:
        count = min(round(rng.uniform(*FIXATION) * frame_rate), frames - now)
        step = np.sqrt(2 * _DRIFT / frame_rate) * PIXELS_PER_DEGREE
        drift = np.cumsum(rng.normal(0, step, (count, 2)), axis=0)
        position[now : now + count] = np.clip(here + drift, low, high)
        here = position[now + count - 1]
        now += count
        if now >= frames:
            break
        goal = _next_target(interest, here, low, high, rng)
        distance = float(np.hypot(*(goal - here)))
        duration = saccade_seconds(distance / PIXELS_PER_DEGREE) * frame_rate
        count = min(max(2, round(duration)), frames - now)
        part = np.minimum(np.arange(1, count + 1) / max(2, round(duration)), 1.0)[:, None]
        position[now : now + count] = here + (goal - here) * (
            part**3 * (10 - 15 * part + 6 * part**2)
        )
        saccade[now : now + count] = True
        onset[now] = distance
        here, now = goal, now + count
    return Gaze(position, saccade, onset)


def _next_target(
    interest: np.ndarray,
    here: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    while True:
        angle = rng.uniform(0, 2 * np.pi, _CANDIDATES)
        distance = rng.uniform(*AMPLITUDE, _CANDIDATES)
        places = here + distance[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
        inside = ((places >= low) & (places <= high)).all(axis=1)
        if inside.any():
            return _target(interest, places[inside], rng)


def _target(interest: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = places.round().astype(int).T
    weight = interest[rows, columns] ** 2 + 1e-9
    chosen: np.ndarray = places[rng.choice(len(places), p=weight / weight.sum())]
    return chosen
