"""Find what is wrong with a recording before the first epoch."""

from dataclasses import replace

import numpy as np

from lightning_prune.data.checks import DataError
from lightning_prune.data.neural_session import NeuralSession

_BLOCK = 2**24  # bytes of a movie that are looked at together


def check_session(session: NeuralSession) -> NeuralSession:
    """Refuse a session that cannot be trained on.

    Args:
        session: what was recorded; `valid` may have the shape (T,).

    Returns:
        the same with `valid` of shape (T, N).

    Raises:
        DataError: names the session, the array, what was found and what is wanted.
    """
    frames = _check_stimulus(session)
    rows, cells = _shape(session, "spikes", session.spikes, 2)
    if cells == 0:
        raise wrong(session.name, "spikes", "holds no cell", "(T, N) with N at least 1")
    _same_length(session, frames, rows, "spikes")
    _check_kind(session, "spikes", session.spikes, "uif", "counts")
    valid = _check_valid(session, frames, cells)
    _check_counts(session, "spikes", session.spikes, valid)
    if session.rate is not None:
        if session.rate.shape != session.spikes.shape:
            raise wrong(session.name, "rate", _of_shape(session.rate), _of_shape(session.spikes))
        _check_kind(session, "rate", session.rate, "uif", "expected counts per frame")
        _check_counts(session, "rate", session.rate, valid)
    rows, _ = _shape(session, "behavior", session.behavior, 2)
    _same_length(session, frames, rows, "behavior")
    _check_kind(session, "behavior", session.behavior, "uif", "numbers")
    bad = np.flatnonzero(~np.isfinite(session.behavior).all(axis=1) & valid.any(axis=1))
    if len(bad):
        found = f"is NaN or infinite in {len(bad)} valid frames, first in frame {bad[0]}"
        raise wrong(session.name, "behavior", found, "finite numbers, or valid False there")
    _check_integers(session, frames, "trial", session.trial)
    if session.repeat is not None:
        _check_integers(session, frames, "repeat", session.repeat)
    for name, labels in session.labels.items():
        _check_labels(session, frames, name, labels)
    if not 0 < session.frame_rate < np.inf:
        found = f"is {session.frame_rate}"
        raise wrong(session.name, "frame_rate", found, "a number above 0, in Hz")
    return replace(session, valid=valid)


def wrong(place: str, array: str, found: str, wanted: str) -> DataError:
    """Make the error of one array.

    >>> print(wrong("a.npz", "trial", "has shape (3, 1)", "(T,) integers"))
    a.npz: the array `trial` has shape (3, 1); wanted: (T,) integers
    """
    return DataError(f"{place}: the array `{array}` {found}; wanted: {wanted}")


def _check_stimulus(session: NeuralSession) -> int:
    stimulus = session.stimulus
    frames, *sides = _shape(session, "stimulus", stimulus, 3)
    if not all(sides) or not frames:
        raise wrong(session.name, "stimulus", _of_shape(stimulus), "(T, H, W), none of them 0")
    if stimulus.dtype == np.uint8:
        return frames
    _check_kind(session, "stimulus", stimulus, "f", "uint8 or floating point")
    step = max(1, _BLOCK // (stimulus.dtype.itemsize * sides[0] * sides[1]))
    for start in range(0, frames, step):
        block = stimulus[start : start + step]
        bad = np.flatnonzero(~np.isfinite(block).all(axis=(1, 2)))
        if len(bad):
            found = f"is NaN or infinite, first in frame {start + bad[0]}"
            raise wrong(session.name, "stimulus", found, "finite grey values in every frame")
    return frames


def _check_valid(session: NeuralSession, frames: int, cells: int) -> np.ndarray:
    valid = np.asarray(session.valid)
    if valid.dtype != bool:
        raise wrong(session.name, "valid", f"has type {valid.dtype}", "bool, True where usable")
    if valid.shape not in {(frames,), (frames, cells)}:
        wanted = f"({frames},) or ({frames}, {cells}), as the stimulus and the spikes"
        raise wrong(session.name, "valid", _of_shape(valid), wanted)
    if not valid.any():
        raise wrong(session.name, "valid", "is False everywhere", "True where spikes are usable")
    return valid if valid.ndim == 2 else np.repeat(valid[:, None], cells, axis=1)


def _check_counts(session: NeuralSession, name: str, values: np.ndarray, valid: np.ndarray) -> None:
    usable = np.where(valid, values, 0)
    for bad, what in [(~np.isfinite(usable), "NaN or infinite"), (usable < 0, "negative")]:
        if bad.any():
            frame, cell = np.argwhere(bad)[0]
            found = f"is {what} at {int(bad.sum())} valid places, first frame {frame}, cell {cell}"
            raise wrong(session.name, name, found, "numbers of at least 0, or valid False there")


def _check_labels(session: NeuralSession, frames: int, name: str, labels: np.ndarray) -> None:
    array = name if name == "labels" else f"labels_{name}"
    _check_integers(session, frames, array, labels)
    low, high, known = int(labels.min()), int(labels.max()), len(session.label_names[name])
    if low < -1 or high >= known:
        wanted = f"classes 0 to {known - 1}, for which there are names, or -1: none"
        raise wrong(session.name, array, f"holds classes from {low} to {high}", wanted)


def _check_integers(session: NeuralSession, frames: int, name: str, values: np.ndarray) -> None:
    (rows,) = _shape(session, name, values, 1)
    _same_length(session, frames, rows, name)
    _check_kind(session, name, values, "ui", "integers")


def _shape(session: NeuralSession, name: str, values: object, dimensions: int) -> tuple[int, ...]:
    shape: tuple[int, ...] = tuple(getattr(values, "shape", ()))
    if len(shape) != dimensions:
        wanted = {
            "stimulus": "(T, H, W)",
            "spikes": "(T, N)",
            "behavior": "(T, D)",
        }.get(name, "(T,)")
        raise wrong(session.name, name, f"has shape {shape}", wanted)
    return shape


def _same_length(session: NeuralSession, frames: int, rows: int, name: str) -> None:
    if rows != frames:
        wanted = f"one row for each of the {frames} frames of the stimulus"
        raise wrong(session.name, name, f"has {rows} rows", wanted)


def _check_kind(session: NeuralSession, name: str, values: object, kinds: str, wanted: str) -> None:
    dtype = np.dtype(getattr(values, "dtype", object))
    if dtype.kind not in kinds:
        raise wrong(session.name, name, f"has type {dtype}", wanted)


def _of_shape(values: object) -> str:
    return f"has shape {tuple(getattr(values, 'shape', ()))}"
