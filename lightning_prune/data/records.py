"""Pictures on disk with their objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_prune.data.images import read_image


@dataclass(frozen=True)
class ImageRecord:
    """One picture file and what is in it.

    Attributes:
        path: of the picture.
        labels: (M,) int64, class in 0..K-1.
        boxes: (M, 4) float64, cx, cy, w, h normalised to [0, 1].
    """

    path: Path
    labels: np.ndarray
    boxes: np.ndarray


class ImageFiles:
    """Source of pictures that are files.

    Args:
        records: one per picture.
    """

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self.records = list(records)

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.records)

    def image(self, index: int) -> np.ndarray:
        """Read picture `index`: (H, W, 3) uint8 RGB."""
        return read_image(self.records[index].path)

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Give labels (M,) and boxes (M, 4) of picture `index`."""
        record = self.records[index]
        return record.labels, record.boxes
