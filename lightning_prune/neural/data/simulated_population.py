"""Simulated visual cells: which part of the movie drives them, and how."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightning_prune.neural.data.simulated_behavior import (
    PUPIL,
    RUNNING,
    SACCADE,
    bump_seconds,
)

Kind = Literal["simple", "complex", "centre"]
_MIXTURE: tuple[Kind, ...] = ("simple", "centre", "complex", "simple", "centre")
TAPS = 16  # frames of the temporal kernel
ADAPTATION = 9  # frames before a frame that weaken the response to it
HISTORY = TAPS + ADAPTATION  # frames a rate depends on
# few values, so that cells share what they compute, as cells of one area do
_ORIENTATIONS = 4
_WAVELENGTHS = (8.0, 12.0)  # pixels
_CENTRES = (1.5, 2.5)  # pixels


@dataclass(frozen=True, eq=False)
class SimulatedPopulation:
    r"""N cells, each a linear filter, rectified and saturating, with adaptation and gain.

    With the drives d_q(t) = sum_tau k(tau) <f_q, s(t - tau)> of two spatial filters, s the
    movie minus 127 over 255,

    .. math::
        u = d_1 \text{ or } \sqrt{d_1^2 + d_2^2}, \quad
        z(t) = \max(u(t) - \theta, 0), \quad
        g(t) = \frac{z(t)}{1 + z(t)}, \quad
        r(t) = b + a \, e^{w \cdot x(t)} \frac{g(t)}{1 + \alpha \sum_{j=1}^{9} v_j g(t - j)}

    with x the behaviour. The sums see frames of the same trial only, before it there is nothing:
    no drive, no response.

    Attributes:
        kind: N kinds; complex cells take the root of two squared filters a quarter of a
            wavelength apart.
        spatial: (2, N, P, P) filters f; the second is zero except for complex cells.
        temporal: (16, N) kernels k, frame 0 first.
        threshold: (N,) theta, in units of the filters' output.
        adaptation: (N,) alpha.
        gain: (D, N) weights w of the behaviour.
        offset: (N,) b, Hz.
        amplitude: (N,) a, Hz.
    """

    kind: tuple[Kind, ...]
    spatial: np.ndarray
    temporal: np.ndarray
    threshold: np.ndarray
    adaptation: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    amplitude: np.ndarray

    def drive(self, movie: np.ndarray) -> np.ndarray:
        """Filter the movie of one trial.

        Args:
            movie: (T, P, P) uint8.

        Returns:
            (T, N) the u of each cell.
        """
        frames = len(movie)
        flat = (movie.reshape(frames, -1).astype(np.float32) - 127) / 255
        quadratures = []
        for filters in self.spatial:
            space = flat @ filters.reshape(len(filters), -1).T.astype(np.float32)
            padded = np.concatenate([np.zeros((TAPS - 1, space.shape[1])), space])
            quadratures.append(
                sum(
                    self.temporal[tau] * padded[TAPS - 1 - tau : TAPS - 1 - tau + frames]
                    for tau in range(TAPS)
                )
            )
        first, second = quadratures
        is_complex = np.array([kind == "complex" for kind in self.kind])
        result: np.ndarray = np.where(is_complex, np.hypot(first, second), first)
        return result

    def response(self, drive: np.ndarray, behavior: np.ndarray) -> np.ndarray:
        """Rectify, adapt and apply the gain: (T, N), before amplitude and offset."""
        rectified = np.maximum(drive - self.threshold, 0)
        rectified /= 1 + rectified
        weights = np.exp(-np.arange(ADAPTATION) / 3.0)
        weights /= weights.sum()
        padded = np.concatenate([np.zeros((ADAPTATION, drive.shape[1])), rectified])
        past = sum(
            weights[j - 1] * padded[ADAPTATION - j : ADAPTATION - j + len(drive)]
            for j in range(1, ADAPTATION + 1)
        )
        gain = np.exp(behavior.astype(np.float64) @ self.gain)
        result: np.ndarray = gain * rectified / (1 + self.adaptation * past)
        return result

    def rate(self, movie: np.ndarray, behavior: np.ndarray) -> np.ndarray:
        """Return the rates during one trial, (T, N) in Hz."""
        response = self.response(self.drive(movie), behavior)
        rate: np.ndarray = self.offset + self.amplitude * response
        return rate


def draw_population(
    cells: int, pixels: int, width: int, rng: np.random.Generator
) -> SimulatedPopulation:
    """Draw cells with filters of unit energy, not calibrated yet.

    Args:
        cells: N.
        pixels: P, side of the movie.
        width: D, columns of the behaviour.
        rng: Source of everything random.

    Returns:
        the cells, with threshold in standard deviations of the drive, amplitude the mean rate and
        offset the spontaneous rate; `calibrate` turns these into the units of the movie.
    """
    kind = tuple(_MIXTURE[index % len(_MIXTURE)] for index in rng.permutation(cells))
    spatial = np.zeros((2, cells, pixels, pixels))
    for index, each in enumerate(kind):
        spatial[:, index] = _filters(each, pixels, rng)
    gain = np.zeros((width, cells))
    gain[SACCADE] = _saccade_gain(cells, rng)
    gain[PUPIL] = rng.normal(0.2, 0.3, cells)
    gain[RUNNING] = rng.normal(0.2, 0.3, cells)
    return SimulatedPopulation(
        kind,
        spatial,
        temporal=np.stack([_biphasic(*rng.uniform((0.9, 1.4), (1.05, 1.6))) for _ in kind], axis=1),
        threshold=np.where(
            np.array(kind) == "complex", rng.uniform(0.3, 0.6, cells), rng.uniform(-0.3, 0.2, cells)
        ),
        adaptation=rng.uniform(0.5, 3.0, cells),
        gain=gain,
        offset=rng.uniform(1.0, 4.0, cells),
        amplitude=rng.uniform(12.0, 40.0, cells),
    )


def _filters(kind: Kind, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the two spatial filters of a cell, (2, P, P), sum of squares 1."""
    centre = (pixels - 1) / 2
    largest = min(4.0, pixels / 8)
    y, x = np.mgrid[:pixels, :pixels] - centre
    offset = rng.normal(0, largest / 1.5, 2).clip(-largest, largest)
    y, x = y - offset[0], x - offset[1]
    if kind == "centre":
        width = rng.choice(_CENTRES)
        inner, outer = (
            np.exp(-(x**2 + y**2) / (2 * w**2)) / (2 * np.pi * w**2) for w in (width, 2 * width)
        )
        first = (inner - 0.9 * outer) * rng.choice([-1.0, 1.0])
        second = np.zeros_like(first)
    else:
        angle = rng.integers(_ORIENTATIONS) * np.pi / _ORIENTATIONS
        wavelength = rng.choice(_WAVELENGTHS)
        phase = rng.integers(4) * np.pi / 2
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        sigma = 0.35 * wavelength
        envelope = np.exp(-(along**2 + (0.7 * across) ** 2) / (2 * sigma**2))
        waves = [np.cos(2 * np.pi * along / wavelength + phase + turn) for turn in (0, np.pi / 2)]
        # no answer to a uniform field
        first, second = (
            envelope * (wave - (envelope * wave).sum() / envelope.sum()) for wave in waves
        )
        if kind == "simple":
            second = np.zeros_like(first)
    energy = np.sqrt(max((first**2).sum(), 1e-12))
    filters: np.ndarray = np.stack([first, second]) / energy
    return filters


def _biphasic(first: float, ratio: float) -> np.ndarray:
    """Return a temporal kernel (16,) that rises, turns negative and ends; sum of squares 1."""
    x = np.arange(TAPS) / first
    slow = x / ratio / 1.25
    kernel = x**4 * np.exp(-x) / 24 - 0.5 * slow**4 * np.exp(-slow) / 24 / (1.25 * ratio)
    kernel *= 0.5 * (1 + np.cos(np.pi * (np.arange(TAPS) / TAPS) ** 4))
    result: np.ndarray = kernel / np.sqrt((kernel**2).sum())
    return result


def _saccade_gain(cells: int, rng: np.random.Generator) -> np.ndarray:
    """Draw weights (12, N): suppression around a saccade, a rebound near 100 ms after it."""
    seconds = bump_seconds()
    dip, rebound = rng.uniform(0.8, 1.6, cells), rng.uniform(0.4, 1.0, cells)
    shape_dip = np.exp(-((seconds - 0.02) ** 2) / (2 * 0.025**2))
    shape_rebound = np.exp(-((seconds - 0.11) ** 2) / (2 * 0.04**2))
    # the cosines add up to two
    weights: np.ndarray = (np.outer(shape_rebound, rebound) - np.outer(shape_dip, dip)) / 2
    return weights
