"""Reads the epoch of a checkpoint from its first bytes."""

import pickletools
from itertools import islice
from pathlib import Path
from typing import Any

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.inert_pickle import UNREADABLE, explain
from lightning_prune.files.open_regular import open_regular
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.torch_zip import TorchZip

_MEMO = ("BINPUT", "LONG_BINPUT", "MEMOIZE", "FRAME")
_NUMBERS = ("BININT", "BININT1", "BININT2")


def read_epoch(path: str | Path) -> int:
    """Return the epoch in which Lightning wrote a checkpoint.

    Lightning writes it first, so that nothing else has to be decoded: neither the tensors nor the
    structure of the rest are looked at. Files that begin with something else are read whole.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, or of another format.
        KeyError: it has no epoch.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            epoch = _first_value(TorchZip(file).read("data.pkl"))
        if epoch is None:
            epoch = _whole(read_checkpoint(path, "meta"))
    except (FileNotFoundError, CheckpointError, KeyError):
        raise
    except (*UNREADABLE, OSError) as error:
        why = describe_foreign(path, "checkpoint") or explain(error)
        raise CheckpointError(path, why) from error
    return epoch


def _whole(content: Any) -> int:
    epoch = content["epoch"] if isinstance(content, dict) else None
    if not isinstance(epoch, int | float):
        raise ValueError("no Lightning checkpoint: its epoch is no number")
    return int(epoch)


def _first_value(data: bytes) -> int | None:
    """Return the first value of a pickled dict if it is an integer called "epoch"."""
    codes: list[tuple[str, Any]] = []
    for code, value, _ in islice(pickletools.genops(data), 12):
        if code.name not in _MEMO:
            codes.append((code.name, value))
    head = [name for name, _ in codes[:3]]
    if head != ["PROTO", "EMPTY_DICT", "MARK"] or len(codes) < 5:
        return None
    (_, key), (kind, value) = codes[3:5]
    return int(value) if key == "epoch" and kind in _NUMBERS else None
