"""Files that are written whole or not at all."""

import shutil
from pathlib import Path

from lightning_prune.files.part_file import PartFile


def write_bytes(path: Path, content: bytes, keep_mode: bool = False) -> None:
    """Write a file atomically: a reader sees the old one or the new one, never a part.

    Args:
        path: The file; its folder is made where it is missing.
        content: What it holds from then on.
        keep_mode: Whether the permissions of the old file, which must be there, stay.
    """
    with PartFile(path) as part:
        part.write(content)
        if keep_mode:
            shutil.copymode(path, part.path)
        part.commit()
