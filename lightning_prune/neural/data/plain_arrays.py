"""Bring the arrays of a recording into the form that everything behind it works with."""

from dataclasses import replace
from typing import Any

import numpy as np

from lightning_prune.neural.data.errors import wrong
from lightning_prune.neural.data.session import NeuralSession


def plain_session(session: NeuralSession) -> NeuralSession:
    """Convert what can be converted without loss: byte order, bool counts, columns as vectors.

    Args:
        session: What was recorded. A movie in a file keeps its byte order; windows of it do not.

    Returns:
        the same, with the same arrays where nothing is to be converted.

    Raises:
        DataError: an array is masked.
    """
    changes: dict[str, Any] = {}
    for name in ("stimulus", "spikes", "behavior", "valid", "trial", "rate", "repeat"):
        array = getattr(session, name)
        if isinstance(array, np.ndarray):
            changes[name] = _plain(session, name, array)
    changes["labels"] = {
        name: _plain(session, f"labels_{name}", each) if isinstance(each, np.ndarray) else each
        for name, each in session.labels.items()
    }
    spikes, valid = changes.get("spikes"), changes.get("valid")
    if spikes is not None and spikes.dtype == bool:
        changes["spikes"] = spikes.astype(np.uint8)
    # programs without a bool of HDF5 (MATLAB, Julia, C) write bytes
    if valid is not None and valid.dtype == np.uint8 and valid.size and valid.max() <= 1:
        changes["valid"] = valid.astype(bool)
    return replace(session, **changes)


def _plain(session: NeuralSession, name: str, array: np.ndarray) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray):
        wanted = "a plain array: fill it, and set valid False where nothing is to be used"
        raise wrong(session.name, name, "is a masked array", wanted)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    one_column = array.ndim == 2 and 1 in array.shape
    if name == "valid":
        cells = getattr(session.spikes, "shape", (0, 0))[-1]
        one_column = one_column and cells != 1
    vector = name in ("valid", "trial", "repeat") or name.startswith("labels")
    return array.ravel() if one_column and vector else array
