"""Folders of small images to train a classifier on."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, seed: int, height: int = 20, width: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_classes(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder for each class with so many images of noise."""
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            write_image(folder / name / f"{index:03d}.png", (seed * 100 + number) * 1000 + index)
    return folder


def write_splits(root: Path, val: str = "val", test: str | None = "test") -> Path:
    """Two classes in training, validation and test."""
    write_classes(root / "train", {"cat": 6, "dog": 4}, 1)
    write_classes(root / val, {"cat": 2, "dog": 2}, 2)
    if test is not None:
        write_classes(root / test, {"cat": 1, "dog": 2}, 3)
    return root
