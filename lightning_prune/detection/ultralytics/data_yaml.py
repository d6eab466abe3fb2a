"""A `data.yaml` as their tools read it from anywhere: whole paths, and nothing to download."""

from pathlib import Path
from typing import Any

import yaml

from lightning_prune.detection.data.yolo_images import places
from lightning_prune.detection.data.yolo_layout import YoloLayout
from lightning_prune.files.write_bytes import write_bytes


def whole_paths(layout: YoloLayout) -> dict[str, Any]:
    """Return a ``data.yaml`` in which each path is whole; its ``download`` is left out.

    Their tools look for a relative ``path`` in a folder of datasets, and run what ``download``
    says where images are missing.

    Raises:
        DataError: a folder or list of images does not exist.
    """
    splits = {split: [str(place) for place in places(layout, split)] for split in layout.entries}
    shape = {} if layout.key_points is None else {"kpt_shape": list(layout.key_points)}
    names = dict(enumerate(layout.names))
    return {"path": str(layout.base), **splits, **shape, "names": names, "nc": len(names)}


def write_data_yaml(content: dict[str, Any], path: Path) -> Path:
    """Write what ``whole_paths`` gave, and return where."""
    write_bytes(path, yaml.safe_dump(content, sort_keys=False).encode())
    return path
