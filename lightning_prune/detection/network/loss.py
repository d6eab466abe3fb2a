"""The training loss of YOLOv8: CIoU and distribution focal loss for boxes, BCE for classes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lightning_prune.detection.network.assigner import Objects, assign
from lightning_prune.detection.network.head import (
    BINS,
    STRIDES,
    anchor_points,
    distances_to_corners,
    flatten_maps,
)
from lightning_prune.detection.network.iou import complete_iou


class LossParts(NamedTuple):
    """Loss of a batch, scalars.

    Attributes:
        total: The sum of the three parts times the batch size: what is minimised.
        box: CIoU part, with its gain.
        classes: Classification part, with its gain.
        dfl: Distribution focal part, with its gain.
    """

    total: Tensor
    box: Tensor
    classes: Tensor
    dfl: Tensor


class DetectionLoss(nn.Module):
    """CIoU + DFL + BCE over task-aligned assignments.

    Every part is divided by the sum of the target scores of the batch (at least 1). Computed in
    float32 whatever the precision of the maps; a batch without objects is valid.

    Args:
        box_gain: Weight of the CIoU part.
        class_gain: Weight of the classification part.
        dfl_gain: Weight of the distribution focal part.
        strides: Pixels per cell, level by level.

    Source: arXiv 2108.07755 (assignment), 1911.08287 (CIoU), 2006.04388 (distribution focal loss).
    """

    def __init__(
        self,
        box_gain: float = 7.5,
        class_gain: float = 0.5,
        dfl_gain: float = 1.5,
        strides: Sequence[int] = STRIDES,
    ):
        super().__init__()
        self.box_gain = box_gain
        self.class_gain = class_gain
        self.dfl_gain = dfl_gain
        self.strides = tuple(strides)

    def forward(self, maps: Sequence[Tensor], targets: Mapping[str, Tensor]) -> LossParts:
        """Return the loss of raw maps (B, 64 + nc, h, w) against the targets of the batch.

        Args:
            maps: Raw maps of the network in training mode.
            targets: ``image`` (M,), ``label`` (M,), ``box`` (M, 4) as centre x, centre y, width,
                height in [0, 1].
        """
        with torch.autocast(maps[0].device.type, enabled=False):
            return self._loss([level.float() for level in maps], targets)

    def _loss(self, maps: Sequence[Tensor], targets: Mapping[str, Tensor]) -> LossParts:
        box_logits, class_logits = flatten_maps(maps)
        points, strides = anchor_points(maps, self.strides)
        objects = _in_pixels(targets, maps[0].shape, self.strides[0])
        bins = torch.arange(BINS, device=points.device, dtype=torch.float32)
        with torch.no_grad():
            logits = box_logits.transpose(1, 2).reshape(box_logits.shape[0], -1, 4, BINS)
            boxes = distances_to_corners(logits.softmax(-1) @ bins, points) * strides[:, None]
        positive = assign(objects, class_logits, boxes, points * strides[:, None])

        normaliser = positive.score.sum().clamp(min=1)
        bce = (
            softplus(class_logits).sum()
            - (
                class_logits[positive.image, objects.label[positive.target], positive.anchor]
                * positive.score
            ).sum()
        )
        logits = box_logits[positive.image, :, positive.anchor].view(-1, 4, BINS)
        stride = strides[positive.anchor, None]
        ciou, dfl = _box_parts(
            logits, bins, points[positive.anchor], objects.box[positive.target] / stride
        )
        box_loss = self.box_gain * ((1 - ciou) * positive.score).sum() / normaliser
        dfl_loss = self.dfl_gain * (dfl * positive.score).sum() / normaliser
        class_loss = self.class_gain * bce / normaliser
        total = (box_loss + class_loss + dfl_loss) * box_logits.shape[0]
        return LossParts(total, box_loss.detach(), class_loss.detach(), dfl_loss.detach())


def _in_pixels(targets: Mapping[str, Tensor], shape: Sequence[int], stride: int) -> Objects:
    height, width = shape[-2] * stride, shape[-1] * stride
    size = targets["box"].new_tensor([width, height, width, height], dtype=torch.float32)
    box = targets["box"].float() * size
    half = box[:, 2:] / 2
    corners = torch.cat((box[:, :2] - half, box[:, :2] + half), dim=1)
    return Objects(targets["image"].long(), targets["label"].long(), corners)


def _box_parts(
    logits: Tensor, bins: Tensor, points: Tensor, corners: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the CIoU (P,) and the distribution focal loss (P,) of positive anchors, in cells."""
    log_probability = logits.log_softmax(-1)
    ciou = complete_iou(distances_to_corners(log_probability.exp() @ bins, points), corners)

    distance = torch.cat((points - corners[:, :2], corners[:, 2:] - points), dim=1)
    distance = distance.clamp(0, BINS - 1 - 0.01)
    lower = distance.floor()
    index = lower.long()[..., None]
    below = log_probability.gather(-1, index).squeeze(-1)
    above = log_probability.gather(-1, index + 1).squeeze(-1)
    upper_weight = distance - lower
    dfl = -(below * (1 - upper_weight) + above * upper_weight).mean(-1)
    return ciou, dfl
