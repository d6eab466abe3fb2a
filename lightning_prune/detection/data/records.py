"""Images on disk with their objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_prune.data.images import read_image


@dataclass(frozen=True)
class ImageRecord:
    """One image file and what is in it.

    Attributes:
        path: Of the image.
        labels: (M,) int64, class in 0..K-1.
        boxes: (M, 4) float64, cx, cy, w, h normalised to [0, 1].
        upright: Whether the boxes belong to the image as its EXIF orientation turns it, not to the
            pixels as they are stored.
    """

    path: Path
    labels: np.ndarray
    boxes: np.ndarray
    upright: bool = True


class ImageFiles:
    """Source of images that are files.

    Args:
        records: One per image.
    """

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self.records = list(records)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.records)

    def image(self, index: int) -> np.ndarray:
        """Read image `index`: (H, W, 3) uint8 RGB."""
        record = self.records[index]
        return read_image(record.path, record.upright)

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (M,) and boxes (M, 4) of image `index`."""
        record = self.records[index]
        return record.labels, record.boxes
