"""Map-style data set of images with one class each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import rgb_to_grayscale

from lightning_prune.data.images import read_image
from lightning_prune.data.sampler import Draw
from lightning_prune.vision.image_folder_layout import LabelledFile
from lightning_prune.vision.image_folder_views import (
    EvaluationView,
    RandomView,
    evaluation_view,
    random_view,
)

Sample = tuple[Tensor, int]
Batch = tuple[Tensor, Tensor]


@dataclass
class LabelledImages(Dataset[Sample]):
    """Images of files in squares, with their classes.

    With ``augmentation`` every random decision comes from a generator seeded by (seed, epoch,
    index), so that resuming and the number of worker processes change nothing. The epoch travels
    inside the index (``Draw``).

    Attributes:
        files: Images and labels.
        view: How they are cut for evaluation; its size and interpolation hold for training too.
        augmentation: How training images vary, or None for evaluation.
        seed: Of the augmentation.
        channels: 3, or 1 for grey values (those of ITU-R BT.601).
    """

    files: Sequence[LabelledFile]
    view: EvaluationView
    augmentation: RandomView | None = None
    seed: int = 0
    channels: int = 3

    def __len__(self) -> int:
        """Count the images."""
        return len(self.files)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return an image (C, S, S) uint8 and its label."""
        epoch, index = key if isinstance(key, tuple) else Draw(0, key)
        file = self.files[index]
        pixels = read_image(file.path)
        if self.augmentation is None:
            image = evaluation_view(pixels, self.view)
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            size, interpolation = self.view.image_size, self.view.interpolation
            image = random_view(pixels, size, interpolation, self.augmentation, rng)
        return rgb_to_grayscale(image) if self.channels == 1 else image, file.label


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack B images (C, S, S) uint8 to (B, C, S, S) float32 in [0, 1], and labels to (B,) int64.

    >>> images, labels = collate([(torch.full((1, 1, 1), 255, dtype=torch.uint8), 7)])
    >>> images.flatten().tolist(), labels.tolist()
    ([1.0], [7])
    """
    images, labels = zip(*samples, strict=True)
    return torch.stack(images).float().div_(255.0), torch.tensor(labels)
