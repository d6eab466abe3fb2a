"""Which parts of a checkpoint the package's own reading refuses."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import read_checkpoint


def unreadable_parts(content: Any, most: int = 5) -> dict[str, str]:
    """Write parts of some content to files of their own, and return which cannot be read back.

    Meant for content that as a whole could not be read: it takes a file for each part.

    Args:
        content: Of a checkpoint.
        most: How many are looked for.

    Returns:
        Place of each ("state_dict.scale") and the reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, str] = {}
        for place, reason in _search(content, "", Path(folder, "part.ckpt")):
            found[place] = reason
            if len(found) == most:
                break
        return found


def _search(value: Any, place: str, path: Path) -> Iterator[tuple[str, str]]:
    reason = _problem(value, path)
    if reason is None:
        return
    inner = False
    for name, part in _parts(value, place):
        for found in _search(part, name, path):
            inner = True
            yield found
    if not inner:
        yield place or "the content as a whole", reason


def _parts(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"{place}.{key}" if place else str(key), part
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield f"{place}[{number}]", part


def _problem(value: Any, path: Path) -> str | None:
    try:
        torch.save(value, path)
        read_checkpoint(path, "meta")
    except CheckpointError as error:
        return error.reason
    except Exception as error:  # of a foreign object, while it is pickled
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
