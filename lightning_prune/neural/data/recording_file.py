"""Read a recording from an .npz or HDF5 file."""

import os
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.errors import DataError
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.neural.data.array_file import SUFFIXES, UNREADABLE, FileArray, array_names
from lightning_prune.neural.data.checks import check_session
from lightning_prune.neural.data.errors import wrong
from lightning_prune.neural.data.session import NeuralSession

REQUIRED = ("stimulus", "spikes", "valid", "trial", "frame_rate")
_LABELS, _NAMES = "labels", "label_names"
_MOST_CLASSES = 100_000
_OTHER_KINDS = {
    ".mat": ": save its arrays with h5write (in reverse order of axes) or through "
    "scipy.io.loadmat and numpy.savez",
    ".npy": ": save all arrays of a session in one file with numpy.savez",
    ".zarr": ": copy its arrays with numpy.savez or h5py",
    ".nwb": ": copy its arrays with numpy.savez or h5py",
}


def read_session(path: Path | str) -> NeuralSession:
    """Read and check one session; the movie stays in the file.

    The file holds `stimulus` (T, H, W) uint8 or floating point, `spikes` (T, N), `behavior`
    (T, D), `valid` (T,) or (T, N) bool, `trial` (T,) integers, `frame_rate` in Hz. Without
    `behavior` a column of zeros stands for it, with a warning. It may hold label sets, `labels` or
    `labels_<name>` (T,) integers with the names of the classes in `label_names` or
    `label_names_<name>`; `rate` (T, N), true expected counts per frame; `repeat` (T,) integers,
    the same where the same stimulus was shown again, -1 elsewhere.

    Of an uncompressed .npz file (`numpy.savez`) the movie is mapped into memory, of an HDF5 file
    each window is read when needed. A compressed movie is read whole in every process.

    Args:
        path: .npz, .h5 or .hdf5 file.

    Returns:
        the session, named after the path.

    Raises:
        DataError: the file cannot be read, lacks an array, or an array is not as wanted.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: a recording is a file ending in {', '.join(SUFFIXES)}"
            + _OTHER_KINDS.get(path.suffix.lower(), "")
        )
    if not path.is_file():
        foreign = describe_foreign(path, "recording")
        raise DataError(f"{path}: {foreign or 'there is no such file'}")
    try:
        names = array_names(path)
    except UNREADABLE as error:
        reason = describe_foreign(path, "recording") or error
        locked = "unable to lock" in str(error)
        raise DataError(
            f"{path}: not readable as {path.suffix} file: {reason}"
            + (": another program has it open for writing" if locked else "")
        ) from error
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise DataError(
            f"{path}: the array{'s' * (len(missing) > 1)} {', '.join(missing)} missing; found: "
            f"{', '.join(sorted(names)) or 'none'}; wanted: {', '.join(REQUIRED)}, at the top of "
            "the file"
        )
    sets = [name for name in names if name == _LABELS or name.startswith(f"{_LABELS}_")]
    labels = {_set_name(name): _whole(path, name) for name in sets}
    rate, repeat = (_whole(path, name) if name in names else None for name in ("rate", "repeat"))
    stimulus = _lazy(path, "stimulus")
    session = NeuralSession(
        name=str(path),
        stimulus=stimulus,
        spikes=_whole(path, "spikes"),
        behavior=_behavior(path, names, stimulus),
        valid=_whole(path, "valid"),
        trial=_whole(path, "trial"),
        frame_rate=_number(path, "frame_rate"),
        labels=labels,
        label_names={
            name: _class_names(path, names, name, values) for name, values in labels.items()
        },
        rate=rate,
        repeat=repeat,
    )
    return check_session(session)


def _behavior(path: Path, names: list[str], stimulus: FileArray) -> np.ndarray:
    array = _whole(path, "behavior") if "behavior" in names else None
    if array is not None and (array.ndim != 2 or array.shape[1]):
        return array
    rank_zero_warn(f"{path}: no column of `behavior`: one of zeros is taken.")
    return np.zeros((*stimulus.shape[:1], 1), np.float32)


def _set_name(array: str) -> str:
    return array.removeprefix(_LABELS).removeprefix("_") or _LABELS


def _class_names(path: Path, names: list[str], name: str, values: np.ndarray) -> list[str]:
    array = _NAMES if name == _LABELS else f"{_NAMES}_{name}"
    if array in names:
        given = np.atleast_1d(_whole(path, array)).tolist()
        return [
            each.decode(errors="replace") if isinstance(each, bytes) else str(each)
            for each in given
        ]
    highest = int(values.max()) if values.dtype.kind in "ui" and values.size else -1
    if highest >= _MOST_CLASSES:
        array = _LABELS if name == _LABELS else f"{_LABELS}_{name}"
        raise wrong(str(path), array, f"holds the class {highest}", "classes counted from 0")
    return [str(index) for index in range(highest + 1)]


def _lazy(path: Path, name: str) -> FileArray:
    try:
        return FileArray(path, name)
    except UNREADABLE as error:
        raise wrong(str(path), name, f"cannot be read: {error}", "an array of numbers") from error


def _whole(path: Path, name: str) -> np.ndarray:
    array = _lazy(path, name)
    needed = int(np.prod(array.shape, dtype=object)) * array.dtype.itemsize
    if needed > _memory():
        found = f"has shape {array.shape}, {needed / 1e9:.3g} GB"
        raise wrong(str(path), name, found, "what fits into memory")
    try:
        return np.array(array[()])
    except UNREADABLE as error:
        raise wrong(str(path), name, f"cannot be read: {error}", "an array of numbers") from error


def _memory() -> int:
    """Return the bytes of this machine's memory; a large number where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**40


def _number(path: Path, name: str) -> float:
    array = _whole(path, name)
    if array.size != 1 or array.dtype.kind not in "uif":
        found = f"has shape {array.shape} and type {array.dtype}"
        raise wrong(str(path), name, found, "one number")
    return float(array.reshape(()))
