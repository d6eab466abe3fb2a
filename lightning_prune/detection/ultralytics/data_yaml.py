"""A `data.yaml` as their tools read it from anywhere: whole paths, and nothing to download."""

from pathlib import Path
from typing import Any

import yaml as yaml_format

from lightning_prune.errors import DataError
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.files.write_bytes import write_bytes

_SPLITS = ("train", "val", "test")


def read_data_yaml(path: str | Path) -> dict[str, Any]:
    """Read a ``data.yaml``; its paths are made whole, and its ``download`` is left out.

    Their tools look for a relative ``path`` in a folder of datasets, and run what ``download``
    says where images are missing.

    Args:
        path: The file, or the folder that it is in.

    Raises:
        DataError: there is none, or it does not name its images and classes.
    """
    path = Path(path).expanduser()
    path = path / "data.yaml" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"no data.yaml at {path}: pass the file, or the folder that it is in")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: no mapping; it has `train`, `val` and `names`")
    names = content.get("names")
    if not isinstance(names, list | dict) or not names:
        raise DataError(f"{path}: `names` is missing: a list of the classes")
    root = _root(path, content)
    whole: dict[str, Any] = {k: v for k, v in content.items() if k not in ("path", "download")}
    for split in _SPLITS:
        if (given := content.get(split)) is not None:
            places = [given] if isinstance(given, str) else list(given)
            whole[split] = [str(_existing(path, root / str(place), split)) for place in places]
            whole[split] = whole[split][0] if isinstance(given, str) else whole[split]
        else:
            whole.pop(split, None)
    missing = [split for split in ("train", "val") if split not in whole]
    if missing:
        raise DataError(f"{path}: `{missing[0]}` is missing: a folder of images")
    return {"path": str(root), **whole}


def write_data_yaml(content: dict[str, Any], path: Path) -> Path:
    """Write what ``read_data_yaml`` gave, and return where."""
    write_bytes(path, yaml_format.safe_dump(content, sort_keys=False).encode())
    return path


def _root(path: Path, content: dict[str, Any]) -> Path:
    given = content.get("path")
    root = path.parent if given in (None, "") else Path(str(given)).expanduser()
    return (root if root.is_absolute() else path.parent / root).resolve()


def _existing(path: Path, place: Path, split: str) -> Path:
    # ../images/train of Roboflow, which lies beside the file
    found = next((p for p in (place, path.parent / place.name / "images") if p.exists()), None)
    if found is None:
        raise DataError(f"{path}: `{split}` is {place}, which does not exist")
    return found.resolve()
