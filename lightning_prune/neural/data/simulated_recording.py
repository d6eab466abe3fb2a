"""Recordings of simulated cells that watch photographs under simulated eye movements."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from lightning_prune.neural.data.session import NeuralSession
from lightning_prune.neural.data.simulated_behavior import simulate_behavior
from lightning_prune.neural.data.simulated_gaze import Gaze, simulate_gaze
from lightning_prune.neural.data.simulated_photographs import HEIGHT, WIDTH, photographs, structure
from lightning_prune.neural.data.simulated_population import SimulatedPopulation, draw_population

FRAME_RATE = 120.0
_POPULATION, _LOOKING, _FIRING = range(3)


@dataclass(frozen=True)
class RecordingOptions:
    """What is recorded in one session.

    Attributes:
        cells: N.
        pixels: Side of the movie, in pixels.
        trials: Trials of which each is seen once.
        repeated_trials: Trials that are seen several times, the eye moving in the same way.
        repeats: How often each of them is seen.
        trial_seconds: Duration of a trial.
        photos: Number of different photographs.
        seed: Of everything that is random.
        session: Which session; another one has other cells and eye movements.
    """

    cells: int = 24
    pixels: int = 51
    trials: int = 80
    repeated_trials: int = 2
    repeats: int = 8
    trial_seconds: float = 2.5
    photos: int = 16
    seed: int = 0
    session: int = 0


@dataclass(frozen=True, eq=False)
class SimulatedRecording:
    """A session and what it was made of.

    Attributes:
        session: What an experimenter would have, and the true rates.
        population: The cells.
        gazes: The eye in every trial.
        photo: For every trial, which photograph.
    """

    session: NeuralSession
    population: SimulatedPopulation
    gazes: list[Gaze]
    photo: list[int]


@lru_cache(maxsize=4)
def simulate_recording(options: RecordingOptions) -> SimulatedRecording:
    """Record one session; the last four are kept.

    The arrays cannot be written to: they are shared by all who ask.

    Args:
        options: What is recorded.

    Returns:
        the recording; it depends on `options` only.
    """

    def stream(part: int) -> np.random.Generator:
        return np.random.default_rng((options.seed, options.session, part))

    photos = photographs(options.photos)
    photo, gazes, repeat = _look(options, photos, stream(_LOOKING))
    movies = [
        watch(photos[index], gaze.position, options.pixels)
        for index, gaze in zip(photo, gazes, strict=True)
    ]
    rng = stream(_POPULATION)
    behavior = simulate_behavior(gazes, FRAME_RATE, (HEIGHT, WIDTH), rng)
    population = draw_population(options.cells, options.pixels, behavior.shape[1], rng)
    frames = len(movies[0])
    parts = [behavior[start : start + frames] for start in range(0, len(behavior), frames)]
    population = _calibrated(population, movies, parts)
    rate = np.concatenate(
        [population.rate(movie, part) for movie, part in zip(movies, parts, strict=True)]
    )
    expected = (rate / FRAME_RATE).astype(np.float32)
    count = len(movies)
    session = NeuralSession(
        name=f"simulated session {options.session}",
        stimulus=np.concatenate(movies),
        spikes=stream(_FIRING).poisson(expected).astype(np.uint8),
        behavior=behavior,
        valid=np.ones(expected.shape, dtype=bool),
        trial=np.repeat(np.arange(count), frames),
        frame_rate=FRAME_RATE,
        labels={
            "eye": np.concatenate([gaze.saccade for gaze in gazes]).astype(np.int64),
            "photo": np.repeat(np.array(photo), frames),
        },
        label_names={
            "eye": ["fixation", "saccade"],
            "photo": [f"photo {index}" for index in range(options.photos)],
        },
        rate=expected,
        repeat=np.concatenate(repeat),
    )
    for array in session.arrays():
        array.flags.writeable = False
    return SimulatedRecording(session, population, gazes, photo)


def watch(photo: np.ndarray, position: np.ndarray, pixels: int) -> np.ndarray:
    """Cut the movie out of a photograph that an eye sees.

    Args:
        photo: (H, W) uint8.
        position: (T, 2) row and column of the centre, between pixels too.
        pixels: P, side of the movie.

    Returns:
        (T, P, P) uint8, interpolated bilinearly.
    """
    corner = position - (pixels - 1) / 2
    whole = np.floor(corner).astype(int)
    y, x = (corner - whole).T[:, :, None, None].astype(np.float32)
    offsets = np.arange(pixels + 1)
    rows, columns = whole[:, 0, None] + offsets, whole[:, 1, None] + offsets
    around = photo[rows[:, :, None], columns[:, None, :]].astype(np.float32)
    tall = around[:, :, :-1] * (1 - x) + around[:, :, 1:] * x
    result: np.ndarray = (tall[:, :-1] * (1 - y) + tall[:, 1:] * y).round().astype(np.uint8)
    return result


def _look(
    options: RecordingOptions, photos: np.ndarray, rng: np.random.Generator
) -> tuple[list[int], list[Gaze], list[np.ndarray]]:
    """Choose photographs and move the eye; the repeated trials are spread over the session."""
    frames = round(options.trial_seconds * FRAME_RATE)
    interest = [structure(photo) for photo in photos]
    different = options.trials + options.repeated_trials
    cycles = -(-different // len(photos))
    chosen = np.concatenate([rng.permutation(len(photos)) for _ in range(cycles)])[:different]
    gazes = [
        simulate_gaze(interest[index], frames, FRAME_RATE, options.pixels / 2 + 1, rng)
        for index in chosen
    ]
    order = rng.permutation(
        np.concatenate(
            [
                np.arange(options.trials),
                np.repeat(np.arange(options.trials, different), options.repeats),
            ]
        )
    )
    instants = [
        np.arange(frames) + (index - options.trials) * frames
        if index >= options.trials
        else np.full(frames, -1)
        for index in order
    ]
    return [int(chosen[index]) for index in order], [gazes[index] for index in order], instants


def _calibrated(
    population: SimulatedPopulation, movies: list[np.ndarray], behavior: list[np.ndarray]
) -> SimulatedPopulation:
    """Scale the filters to unit drive and the amplitudes to the mean rates that were drawn."""
    drives = [population.drive(movie) for movie in movies]
    deviation = np.quantile(np.abs(np.concatenate(drives)), 0.75, axis=0)
    scaled = replace(population, spatial=population.spatial / deviation[:, None, None])
    response = np.concatenate(
        [
            scaled.response(drive / deviation, part)
            for drive, part in zip(drives, behavior, strict=True)
        ]
    )
    return replace(scaled, amplitude=(scaled.amplitude - scaled.offset) / response.mean(axis=0))
