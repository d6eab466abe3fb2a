"""Put single images together into the batch every module of this package reads."""

from collections.abc import Sequence

import torch
from torch import Tensor

Sample = tuple[Tensor, Tensor, Tensor]
Batch = tuple[Tensor, dict[str, Tensor]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack B images and list their M objects.

    Args:
        samples: For each image: image (C, H, W) uint8, labels (m,) int64, boxes (m, 4) float32
            (centre x, centre y, width, height, each in [0, 1] of the image).

    Returns:
        images (B, C, H, W) float32, RGB or grey in [0, 1]; targets with `image` (M,) int64
        (index in the batch), `label` (M,) int64 and `box` (M, 4) float32. M may be 0.

    >>> pixel = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    >>> whole = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    >>> images, targets = collate([(pixel, torch.tensor([7]), whole)])
    >>> images.flatten().tolist(), targets["image"].tolist(), targets["label"].tolist()
    ([1.0, 1.0, 1.0], [0], [7])
    """
    images, labels, boxes = zip(*samples, strict=True)
    counts = torch.tensor([len(each) for each in labels])
    targets = {
        "image": torch.repeat_interleave(torch.arange(len(samples)), counts),
        "label": torch.cat(labels),
        "box": torch.cat(boxes),
    }
    return torch.stack(images).float().div_(255.0), targets
