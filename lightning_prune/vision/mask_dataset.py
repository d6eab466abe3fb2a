"""Map-style data set of images and masks: as in evaluation, or augmented by the epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import rgb_to_grayscale

from lightning_prune.data.images import read_image
from lightning_prune.data.sampler import Draw
from lightning_prune.vision.mask_augment import MaskAugmentation, MaskView, augment, letterbox
from lightning_prune.vision.mask_file import IGNORED, MaskReading

Sample = tuple[Tensor, Tensor]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MaskRecord:
    """An image file and its mask.

    Attributes:
        image: The image.
        mask: Its mask.
        upright: Whether the mask belongs to the image as its EXIF orientation turns it, not to the
            pixels as they are stored.
    """

    image: Path
    mask: Path
    upright: bool = True


@dataclass
class MaskDataset(Dataset[Sample]):
    """Images and masks in squares of ``image_size`` pixels.

    Without ``augmentation`` every image is letterboxed, nothing else. With it every random decision
    comes from a generator seeded by (seed, epoch, index), so that resuming and the number of worker
    processes change nothing. The epoch travels inside the index (``Draw``).

    Attributes:
        records: One per image.
        reading: How masks are read.
        image_size: Side of the square, in pixels.
        augmentation: How training images are varied, or None for evaluation.
        seed: Of the augmentation.
        channels: 3, or 1 for grey values (those of ITU-R BT.601).
    """

    records: Sequence[MaskRecord]
    reading: MaskReading
    image_size: int
    augmentation: MaskAugmentation | None = None
    seed: int = 0
    channels: int = 3

    def __len__(self) -> int:
        """Count the images."""
        return len(self.records)

    def load(self, index: int) -> MaskView:
        """Return image ``index`` and its mask as they are in their files.

        Raises:
            ImageError: a file cannot be read.
            MaskError: the mask has values that are no classes.
        """
        record = self.records[index]
        image = read_image(record.image, record.upright)
        return MaskView(image, self.reading.classes(record.mask))

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return image (C, S, S) uint8 and mask (S, S) int64, ``ignore_index`` where none counts.

        That of the reading, for padding too.
        """
        epoch, index = key if isinstance(key, tuple) else Draw(0, key)
        view = self.load(index)
        if self.augmentation is None:
            view = letterbox(view, self.image_size)
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            view = augment(view, self.image_size, self.augmentation, rng)
        image = torch.from_numpy(view.image).permute(2, 0, 1).contiguous()
        if self.channels == 1:
            image = rgb_to_grayscale(image)
        mask = torch.from_numpy(view.mask).long()
        return image, torch.where(mask == IGNORED, self.reading.ignore_index, mask)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack B images and masks.

    Returns:
        images (B, C, S, S) float32, RGB or grey in [0, 1]; masks (B, S, S) int64.

    >>> pixel, mask = torch.full((3, 1, 1), 255, dtype=torch.uint8), torch.tensor([[4]])
    >>> images, masks = collate([(pixel, mask)])
    >>> images.flatten().tolist(), masks.tolist()
    ([1.0, 1.0, 1.0], [[[4]]])
    """
    images, masks = zip(*samples, strict=True)
    return torch.stack(images).float().div_(255.0), torch.stack(masks)
