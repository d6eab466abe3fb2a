"""Files that are written whole or not at all."""

import os
import shutil
import uuid
from pathlib import Path


def write_bytes(path: Path, content: bytes, keep_mode: bool = False) -> None:
    """Write a file atomically: a reader sees the old one or the new one, never a part.

    Args:
        path: The file; its folder is made where it is missing.
        content: What it holds from then on.
        keep_mode: Whether the permissions of the old file, which must be there, stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_mode:
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
