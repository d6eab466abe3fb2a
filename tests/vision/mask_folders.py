"""Small data sets of images and masks, written for a test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["background", "left", "right"]
SIZE = 32


def scene(index: int, size: tuple[int, int] = (SIZE, SIZE)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose red and green say its classes: a block on either side, and noise."""
    rng = np.random.default_rng(index)
    height, width = size
    mask = np.zeros(size, dtype=np.uint8)
    top, tall = int(rng.integers(0, height // 3)), height // 3
    mask[top : top + tall, : width // 3] = 1
    mask[height // 2 :, -width // 3 :] = 2
    image = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    image[mask == 1, 0] += 180
    image[mask == 2, 1] += 180
    return image, mask


def write_folder(
    root: Path, counts: dict[str, int] | None = None, names: Sequence[str] | None = NAMES
) -> Path:
    """Write root/{split}/{images,masks} and classes.txt; return the root."""
    for split, count in (counts or {"train": 6, "val": 3, "test": 2}).items():
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, mask = scene(index + 100 * len(split))
            Image.fromarray(image).save(root / split / "images" / f"{index}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{index}.png")
    if names is not None:
        (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root
