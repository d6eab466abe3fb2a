"""How far the raw maps of a detector that trains are from those of the dense one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST = 1e-6
_TEMPERATURE = 10.0
_SIDES = 4
_MAP = 4  # dimensions


class RawMaps(NamedTuple):
    """What a detector computes for its A anchors, of all levels.

    Attributes:
        boxes: (B, 4 R, A): logits of R bins for each side; R = 1: the distances themselves.
        classes: (B, nc, A) logits.
    """

    boxes: Tensor
    classes: Tensor


def raw_maps(outputs: Any, num_classes: int) -> list[RawMaps]:
    """Return the raw maps in what a detector gives in training, in the order of its heads.

    Maps (B, 4 R + nc, h, w), level by level; or a dict with ``boxes`` and ``scores``, one or one
    for each head, as newer networks of Ultralytics give. Anything else holds none.

    >>> levels = [torch.zeros(1, 66, 2, 2), torch.zeros(1, 66, 1, 1)]
    >>> [tuple(part.shape) for part in raw_maps(levels, 2)[0]]
    [(1, 64, 5), (1, 2, 5)]
    """
    if isinstance(outputs, Mapping):
        boxes, classes = outputs.get("boxes"), outputs.get("scores")
        if isinstance(boxes, Tensor) and isinstance(classes, Tensor):
            return [RawMaps(boxes, classes)]
        return [found for part in outputs.values() for found in raw_maps(part, num_classes)]
    if not isinstance(outputs, list) or not outputs:
        return []
    wide = {part.shape[1] for part in outputs if isinstance(part, Tensor) and part.ndim == _MAP}
    bins = max(wide, default=0) - num_classes
    if len(wide) != 1 or bins <= 0 or bins % _SIDES:
        return []
    joined = torch.cat([level.flatten(2) for level in outputs], 2)
    return [RawMaps(joined[:, :bins], joined[:, bins:])]


def map_distillation_loss(maps: RawMaps, dense: RawMaps) -> Tensor:
    r"""Return how far raw maps are from those of the dense network.

    .. math:: \frac{\sum BCE(p, \hat p)}{\sum BCE(\hat p, \hat p)} - 1 + \frac{T^2}{4}
        \frac{\sum_a \hat c_a \sum_s KL(\hat q_{as} \| q_{as})}{\sum_a \hat c_a}

    with p the class probabilities, c the largest one of an anchor, and q the distribution over the
    bins of a side at temperature T = 10; a hat is the dense network's. Without bins the divergence
    is the smooth L1 distance of the sides.

    Args:
        maps: Of the network that trains.
        dense: Of the dense network.

    Source: Z. Zheng, R. Ye, P. Wang, D. Ren, W. Zuo, Q. Hou, M.-M. Cheng, 2022, Localization
    Distillation for Dense Object Detection, CVPR, arXiv 2102.12252 (boxes); Q. Yang, H. Zhu,
    et al., 2023, Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
    Detection, ICCV, arXiv 2308.14286 (classes).

    >>> same = RawMaps(torch.zeros(1, 64, 5), torch.zeros(1, 2, 5))
    >>> map_distillation_loss(same, same).item()
    0.0
    """
    wanted = dense.classes.float().sigmoid()
    target = wanted.clamp(_LEAST, 1 - _LEAST)
    cross = F.binary_cross_entropy_with_logits(maps.classes.float(), target, reduction="sum")
    least = F.binary_cross_entropy_with_logits(target.logit(), target, reduction="sum")
    sure = wanted.amax(1)
    off = _off(maps.boxes.float(), dense.boxes.float())
    boxes = (sure * off).sum() / sure.sum().clamp(min=_LEAST)
    return cross / least.clamp(min=_LEAST) - 1.0 + boxes


def _off(boxes: Tensor, dense: Tensor) -> Tensor:
    """Return how far the sides of each anchor are off, (B, A), their mean."""
    batch, channels, anchors = boxes.shape
    if channels == _SIDES:
        return F.smooth_l1_loss(boxes, dense, reduction="none").mean(1)
    shape = batch, _SIDES, channels // _SIDES, anchors
    given = (boxes.view(shape) / _TEMPERATURE).log_softmax(2)
    wanted = (dense.view(shape) / _TEMPERATURE).log_softmax(2)
    divergence = (wanted.exp() * (wanted - given)).sum(2)
    return divergence.mean(1) * _TEMPERATURE**2
