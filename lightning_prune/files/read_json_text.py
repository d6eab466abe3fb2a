"""Reads JSON of strangers."""

import json
from pathlib import Path
from typing import Any

from lightning_prune.files.file_error import FileError, printable
from lightning_prune.files.read_text import MEGABYTE, read_text


def read_json_text(path: str | Path, largest: int = 64 * MEGABYTE, strict: bool = True) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.
        largest: Bytes that it may have.
        strict: Whether a key that stands twice in one object is an error; Python would take the
            last one.

    Raises:
        FileNotFoundError: nothing has this name.
        FileError: it is no JSON, nested too deeply, or what ``read_text`` refuses.
    """
    path = Path(path)
    text = read_text(path, largest)
    try:
        return json.loads(text, object_pairs_hook=_unique if strict else None)
    except json.JSONDecodeError as error:
        raise FileError(path, f"no JSON: line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise FileError(path, "nested deeper than any such file") from error
    except ValueError as error:  # a number of thousands of digits, a key that stands twice
        raise FileError(path, f"refused: {printable(str(error), 200)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {printable(twice)!r} stands twice in one object")
    return found
