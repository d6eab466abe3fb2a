"""Map-style detection data set: evaluation images, or augmented ones that depend on the epoch."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import rgb_to_grayscale

from lightning_prune.data.sampler import Draw
from lightning_prune.detection.data.affine import View
from lightning_prune.detection.data.augment import Augmentation, augment
from lightning_prune.detection.data.collate import Sample
from lightning_prune.detection.data.letterbox import fit, letterbox


class ImageSource(Protocol):
    """Where images and their objects come from."""

    def __len__(self) -> int:
        """Count the images."""
        ...

    def image(self, index: int) -> np.ndarray:
        """Read image `index`: (H, W, 3) uint8 RGB."""
        ...

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (M,) int64 and boxes (M, 4) float64, cx, cy, w, h normalised to [0, 1]."""
        ...


@dataclass
class DetectionDataset(Dataset[Sample]):
    """Images of a source in squares of `image_size` pixels.

    Without `augmentation` every image is letterboxed, nothing else. With it every random decision
    comes from a generator seeded by (seed, epoch, index), so that resuming and the number of worker
    processes change nothing. The epoch travels inside the index (`Draw`): worker processes that
    live through the whole training know it too.

    Attributes:
        source: Images and objects.
        image_size: Side of the square, in pixels.
        augmentation: How training images are varied, or None for evaluation.
        seed: Of the augmentation.
        mosaic_ends: First epoch without mosaic, or None: never ends.
        cache: Hold every resized image in memory from the start.
        channels: 3, or 1 for grey values (those of ITU-R BT.601).
    """

    source: ImageSource
    image_size: int
    augmentation: Augmentation | None = None
    seed: int = 0
    mosaic_ends: int | None = None
    cache: bool = False
    channels: int = 3
    _images: list[np.ndarray] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Fill the cache before worker processes are forked, so that they share it."""
        if self.cache and self._images is None:
            self._images = [
                fit(self.source.image(index), self.image_size) for index in range(len(self.source))
            ]

    def __len__(self) -> int:
        """Count the images."""
        return len(self.source)

    def load(self, index: int) -> View:
        """Return image `index` with its longer side at `image_size`, boxes in its pixels."""
        if self._images is not None:
            image = self._images[index]
        else:
            image = fit(self.source.image(index), self.image_size)
        labels, boxes = self.source.objects(index)
        height, width = image.shape[:2]
        half = boxes[:, 2:] / 2
        corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        # labels rounded to six digits stick out of the image by a hair
        pixels = corners.clip(0, 1) * np.array([width, height, width, height], dtype=np.float64)
        return View(image, pixels, labels)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return image (C, S, S) uint8, labels (m,) int64, boxes (m, 4) float32 in [0, 1]."""
        epoch, index = key if isinstance(key, tuple) else Draw(0, key)
        size = self.image_size
        if self.augmentation is None:
            view = self.load(index)
            square = letterbox(view.image, size)
            _, boxes, labels = view.moved(view.image, square.left, square.top)
            image = torch.from_numpy(np.asarray(square.image)).permute(2, 0, 1).contiguous()
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            use_mosaic = self.mosaic_ends is None or epoch < self.mosaic_ends
            image, boxes, labels = augment(
                self.load, index, len(self), size, self.augmentation, rng, use_mosaic
            )
        if self.channels == 1:
            image = rgb_to_grayscale(image)
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        normalised = np.concatenate([centres, sides], axis=1) / size
        return (
            image,
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(normalised).float(),
        )
