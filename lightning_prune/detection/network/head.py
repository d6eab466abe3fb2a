"""The decoupled head of YOLOv8 and the decoding of its raw maps."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_prune.detection.network.blocks import Conv

BINS = 16
"""Bins of the distribution over each side of a box."""
STRIDES = (8, 16, 32)
"""Pixels of the image per cell, level by level."""


def anchor_points(maps: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the cell centres of all levels and the stride of each.

    Anchors run level by level, row by row within a level.

    Returns:
        Points (A, 2) float32 as x, y in cells; strides (A,) float32 in pixels.

    >>> points, steps = anchor_points([torch.zeros(1, 65, 1, 2)], [8])
    >>> points.tolist(), steps.tolist()
    ([[0.5, 0.5], [1.5, 0.5]], [8.0, 8.0])
    """
    points, steps = [], []
    for level, stride in zip(maps, strides, strict=True):
        height, width = level.shape[-2:]
        x = torch.arange(width, device=level.device, dtype=torch.float32) + 0.5
        y = torch.arange(height, device=level.device, dtype=torch.float32) + 0.5
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((columns, rows), dim=-1).flatten(0, 1))
        steps.append(torch.full_like(points[-1][:, 0], stride))
    return torch.cat(points), torch.cat(steps)


def flatten_maps(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join raw maps (B, 64 + nc, h, w) into box logits (B, 64, A) and class logits (B, nc, A)."""
    joined = torch.cat([level.flatten(2) for level in maps], dim=2)
    return joined[:, : 4 * BINS], joined[:, 4 * BINS :]


class DFL(nn.Module):
    r"""Expected distance under a softmax over bins.

    .. math:: d = \sum_i i \, \mathrm{softmax}(z)_i, \quad i = 0 .. 15

    The bins are a frozen parameter, not a buffer, so that the number of parameters is the one
    that is published for YOLOv8.

    Source: X. Li, W. Wang, L. Wu, S. Chen, X. Hu, J. Li, J. Tang, J. Yang, 2020, Generalized Focal
    Loss, arXiv 2006.04388.
    """

    def __init__(self, bins: int = BINS):
        super().__init__()
        self.bins = nn.Parameter(torch.arange(bins, dtype=torch.float32), requires_grad=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (..., bins) to distances (...) in cells."""
        # Not a product with `@`: ONNX Runtime would run it as one tiny product per anchor, 7 % of
        # YOLOv8n's latency.
        return (logits.float().softmax(-1) * self.bins.float()).sum(-1)


def distances_to_corners(distances: Tensor, points: Tensor) -> Tensor:
    """Turn distances left, top, right, bottom (..., 4) from points (..., 2) into x1, y1, x2, y2."""
    near, far = distances.chunk(2, dim=-1)
    return torch.cat((points - near, points + far), dim=-1)


def published_box_width(finest: int) -> int:
    """Return the hidden channels of the box branches where the finest level has so many."""
    return max(finest // 4, 4 * BINS)


def published_class_width(finest: int, num_classes: int) -> int:
    """Return the hidden channels of the class branches where the finest level has so many."""
    return max(finest, min(num_classes, 100))


class Head(nn.Module):
    """Two branches per level: 4 x 16 box bins and one logit per class.

    Args:
        in_channels: Channels of the three feature maps, finest first.
        num_classes: Number of classes.
        box_width: Hidden channels of the box branches; None: as published.
        class_width: Hidden channels of the class branches; None: as published.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        box_width: int | None = None,
        class_width: int | None = None,
    ):
        super().__init__()
        box_width = box_width or published_box_width(in_channels[0])
        class_width = class_width or published_class_width(in_channels[0], num_classes)
        self.strides = STRIDES
        self.boxes = nn.ModuleList(_branch(c, box_width, 4 * BINS) for c in in_channels)
        self.classes = nn.ModuleList(_branch(c, class_width, num_classes) for c in in_channels)
        self.dfl = DFL()
        self._set_prior(num_classes)

    def _set_prior(self, num_classes: int) -> None:
        for bias, stride in zip(_last(self.classes), self.strides, strict=True):
            # Start from about 5 objects on an image of 640 px, so that the first steps are not
            # spent on pushing thousands of empty cells down (focal loss, arXiv 1708.02002, 4.1).
            prior = 5 / num_classes / (640 / stride) ** 2
            nn.init.constant_(bias, math.log(prior))
        for bias in _last(self.boxes):
            nn.init.zeros_(bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map features (B, C_i, h_i, w_i) to raw maps (B, 64 + nc, h_i, w_i), box bins first."""
        return [
            torch.cat((box(feature), classes(feature)), dim=1)
            for feature, box, classes in zip(features, self.boxes, self.classes, strict=True)
        ]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn raw maps into boxes and probabilities.

        Returns:
            (B, 4 + nc, A) float32: centre x, centre y, width, height in pixels, then one
            probability per class.
        """
        box_logits, class_logits = flatten_maps(maps)
        points, strides = anchor_points(maps, self.strides)
        batch, _, anchors = box_logits.shape
        logits = box_logits.transpose(1, 2).reshape(batch, anchors, 4, BINS)
        near, far = self.dfl(logits).chunk(2, dim=-1)
        centre = points + (far - near) / 2
        boxes = torch.cat((centre, near + far), dim=-1) * strides[:, None]
        return torch.cat((boxes.transpose(1, 2), class_logits.float().sigmoid()), dim=1)


def _branch(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        Conv(in_channels, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, out_channels, 1)
    )


def _last(branches: nn.ModuleList) -> list[Tensor]:
    return [branch.get_submodule("2").get_parameter("bias") for branch in branches]
