"""Read the small files in which runs say what became of them."""

from pathlib import Path
from typing import Any

from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_json_text import read_json_text


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file; None where there is none that can be read."""
    try:
        content = read_json_text(path)
    except (OSError, FileError):
        return None
    return content if isinstance(content, dict) else None
