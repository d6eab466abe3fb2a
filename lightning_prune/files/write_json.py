"""JSON files that are written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_prune.files import write_bytes


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically.

    Raises:
        ValueError: the content holds NaN or infinity, which JSON does not know.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())
