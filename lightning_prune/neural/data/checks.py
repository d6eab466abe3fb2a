"""Find what is wrong with a recording before the first epoch."""

from dataclasses import replace

import numpy as np

from lightning_prune.neural.data.array_file import UNREADABLE, FileArray
from lightning_prune.neural.data.errors import wrong
from lightning_prune.neural.data.plain_arrays import plain_session
from lightning_prune.neural.data.session import NeuralSession

_BLOCK = 2**24  # bytes of a movie that are looked at together
_LARGEST = 2**33  # bytes of a movie in grey values that is read whole: half a minute


def check_session(session: NeuralSession) -> NeuralSession:
    """Refuse a session that cannot be trained on.

    Args:
        session: What was recorded; `valid` may have the shape (T,) and be 0 and 1 in uint8,
            `spikes` may be bool, vectors may be columns or rows, numbers may have any byte order.

    Returns:
        the same with `valid` of shape (T, N), arrays of this machine's byte order, and the range of
        a floating-point movie.

    Raises:
        DataError: names the session, the array, what was found and what is wanted.
    """
    session = plain_session(session)
    _check_time_axis(session)
    frames = _movie_frames(session)
    # before the movie is read: a file may claim any length
    _check_integers(session, frames, "trial", session.trial)
    movie_range = _check_movie(session, frames)
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
    _check_kind(session, "behavior", session.behavior, "uifb", "numbers")
    bad = np.flatnonzero(~_finite(session.behavior).all(axis=1) & valid.any(axis=1))
    if len(bad):
        found = f"is NaN or infinite in {len(bad)} valid frames, first in frame {bad[0]}"
        raise wrong(session.name, "behavior", found, "finite numbers, or valid False there")
    if session.repeat is not None:
        _check_integers(session, frames, "repeat", session.repeat)
    for name, labels in session.labels.items():
        _check_labels(session, frames, name, labels)
    if not 0 < session.frame_rate < np.inf:
        found = f"is {session.frame_rate}"
        raise wrong(session.name, "frame_rate", found, "a number above 0, in Hz")
    return replace(session, valid=valid, movie_range=movie_range)


def _movie_frames(session: NeuralSession) -> int:
    stimulus = session.stimulus
    frames, *sides = _shape(session, "stimulus", stimulus, 3)
    if not all(sides) or not frames:
        raise wrong(session.name, "stimulus", _of_shape(stimulus), "(T, H, W), none of them 0")
    if stimulus.dtype != np.uint8:
        wanted = "uint8 or floating point (whole grey values 0 to 255 belong in uint8)"
        _check_kind(session, "stimulus", stimulus, "f", wanted)
    return frames


def _check_movie(session: NeuralSession, frames: int) -> tuple[float, float] | None:
    stimulus = session.stimulus
    grey = stimulus.dtype == np.uint8
    if grey and not (isinstance(stimulus, FileArray) and stimulus.in_memory() is None):
        return None
    frame = stimulus.dtype.itemsize * int(np.prod(stimulus.shape[1:]))
    step = max(1, _BLOCK // frame)
    starts = range(0, frames, step)
    if grey and frames * frame > _LARGEST:
        # a filter that is missing or a file cut short is known after a few blocks
        starts = starts[:: max(1, len(starts) // 64)]
    low, high = np.inf, -np.inf
    for start in starts:
        try:
            block = stimulus[start : start + step]
        except UNREADABLE as error:
            found = f"cannot be read from frame {start} on: {error}"
            raise wrong(session.name, "stimulus", found, "(T, H, W), whole") from error
        if grey:
            continue
        bad = np.flatnonzero(~_finite(block).all(axis=(1, 2)))
        if len(bad):
            found = f"is NaN or infinite, first in frame {start + bad[0]}"
            raise wrong(session.name, "stimulus", found, "finite grey values in every frame")
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    return None if grey else (low, high)


def _finite(values: np.ndarray) -> np.ndarray:
    # as the network gets them: 1e300 is finite in 64 bits only
    with np.errstate(over="ignore"):
        finite: np.ndarray = np.isfinite(values.astype(np.float32))
    return finite


def _check_time_axis(session: NeuralSession) -> None:
    """Refuse arrays whose time is not the first axis, by the length of `trial`."""
    frames = int(np.asarray(session.trial).size)
    wanted = {"stimulus": "(T, H, W)", "spikes": "(T, N)", "behavior": "(T, D)",
              "valid": "(T,) or (T, N)", "rate": "(T, N)"}  # fmt: skip
    for name, form in wanted.items():
        shape = tuple(getattr(getattr(session, name), "shape", ()))
        if len(shape) > 1 and shape[0] != frames and frames in shape[1:]:
            found = f"has shape {shape}, its time axis is not the first"
            raise wrong(
                session.name, name, found,
                f"{form} with T = {frames}, as `trial` says (MATLAB and other column-major "
                "programs write axes in reverse: transpose it)",
            )  # fmt: skip


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
    for bad, what in [(~_finite(usable), "NaN or infinite"), (usable < 0, "negative")]:
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
