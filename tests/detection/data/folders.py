"""Small data sets on disk, made from coloured rectangles."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, height: int = 48, width: int = 64, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_yolo(
    root: Path,
    labels: Mapping[str, Sequence[str | None]],
    yaml: str = "train: images/train\nval: images/val\nnames: [cat, dog]\n",
) -> Path:
    """Write a data set with one image for each entry of `labels[split]`; None = no label file."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(yaml)
    for split, texts in labels.items():
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        for index, text in enumerate(texts):
            write_image(root / "images" / split / f"{index:03d}.jpg", seed=index)
            if text is not None:
                (root / "labels" / split / f"{index:03d}.txt").write_text(text)
    return root
