"""Reads a bundle's folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.errors import ConfigError
from lightning_prune.files.read_json import read_json

_NAME = "bundle.json"


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle.

    Attributes:
        path: The one that is opened.
        kind: Its format.
        bytes: What it and the file beside it hold.
        gate: What it was judged by, as ``Gate.to_dict`` says it.
    """

    path: Path
    kind: str
    bytes: int
    gate: dict[str, Any]


def is_bundle(path: Path) -> bool:
    """Return whether it is the folder of a bundle."""
    return path.is_dir() and (path / _NAME).is_file()


def read_bundle(folder: Path) -> list[BundleFile]:
    """Return the files of a bundle, compared with their digests.

    Raises:
        ConfigError: ``bundle.json`` cannot be read, or a file is gone or altered.
    """
    content = read_json(folder / _NAME)
    try:
        return [_file(folder, entry) for entry in (content or {})["files"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder / _NAME} is no description of a bundle: export again"
        ) from error


def _file(folder: Path, entry: dict[str, Any]) -> BundleFile:
    size = 0
    for part in entry["files"]:
        path = folder / str(part["name"])
        if path.parent != folder or not path.is_file():
            raise ConfigError(f"{path}: {_NAME} names it, and it is not in the folder")
        content = path.read_bytes()
        size += len(content)
        if hashlib.sha256(content).hexdigest() != part["sha256"]:
            raise ConfigError(
                f"{path} is altered or torn: it does not match the digest in {_NAME}; export again"
            )
    return BundleFile(folder / str(entry["file"]), str(entry["format"]), size, dict(entry["gate"]))
