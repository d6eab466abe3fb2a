"""Task-aligned assignment: which anchors answer for which objects, and how strongly."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prune.detection.network.iou import complete_iou

MINIMUM_SIDE = 16.0
"""Pixels: shorter sides are enlarged to this before anchors are searched inside the box."""


class Objects(NamedTuple):
    """Ground truth of a batch, M objects.

    Attributes:
        image: (M,) int64, index in the batch.
        label: (M,) int64, class.
        box: (M, 4) float32, x1, y1, x2, y2 in pixels.
    """

    image: Tensor
    label: Tensor
    box: Tensor


class Assignment(NamedTuple):
    """Positive anchors of a batch, P in number, ordered by image and anchor.

    Attributes:
        image: (P,) int64, index in the batch.
        anchor: (P,) int64, index of the anchor.
        target: (P,) int64, index of the object that the anchor answers for.
        score: (P,) float32 in (0, 1], the target of the object's class at that anchor.
    """

    image: Tensor
    anchor: Tensor
    target: Tensor
    score: Tensor


@torch.no_grad()
def assign(
    objects: Objects,
    class_logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    r"""Assign anchors to objects by how well class and box agree.

    .. math:: t = s^{\alpha} u^{\beta}

    with s the predicted probability of the object's class and u the CIoU (at least 0) of the
    predicted and the true box. An object takes the ``top_k`` anchors of largest t among those
    whose centre lies inside its box; an anchor taken by several objects goes to the one with the
    largest u of those that contain it. The score of a positive anchor is t scaled so that its
    largest value per object is the object's largest u.

    Work and memory follow the objects that exist, not the fullest image times the batch: only
    pairs with the anchor inside the box are ever evaluated.

    Args:
        objects: Ground truth, M objects.
        class_logits: (B, nc, A).
        boxes: (B, A, 4) predicted x1, y1, x2, y2 in pixels.
        points: (A, 2) anchor centres in pixels.
        top_k: Anchors an object may take.
        alpha: Exponent of the class probability.
        beta: Exponent of the overlap.

    Source: C. Feng, Y. Zhong, Y. Gao, M. R. Scott, W. Huang, 2021, TOOD: Task-aligned One-stage
    Object Detection, ICCV, arXiv 2108.07755.
    """
    anchors = points.shape[0]

    def overlap_and_metric(target: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        image = objects.image[target]
        overlap = complete_iou(objects.box[target], boxes[image, anchor]).clamp_(min=0)
        score = class_logits[image, objects.label[target], anchor].float().sigmoid()
        return overlap, score.pow(alpha) * overlap.pow(beta)

    pair_target, pair_anchor = _inside(objects.box, points).nonzero(as_tuple=True)
    pair_overlap, pair_metric = overlap_and_metric(pair_target, pair_anchor)
    pair_key = objects.image[pair_target] * anchors + pair_anchor

    metric = boxes.new_zeros(objects.box.shape[0], anchors)
    metric[pair_target, pair_anchor] = pair_metric
    value, top = metric.topk(min(top_k, anchors), dim=1)
    target, column = (value > 0).nonzero(as_tuple=True)
    anchor = top[target, column]

    key, owner = _owners(
        objects.image[target] * anchors + anchor,
        target,
        _largest_overlap(pair_key, pair_target, pair_overlap, boxes.shape[0] * anchors),
    )
    anchor = key % anchors
    overlap, owned_metric = overlap_and_metric(owner, anchor)
    best_metric = _maximum(owner, owned_metric, objects.box.shape[0])
    best_overlap = _maximum(owner, overlap, objects.box.shape[0])
    score = owned_metric * best_overlap[owner] / (best_metric[owner] + 1e-9)
    return Assignment(key // anchors, anchor, owner, score)


def _inside(boxes: Tensor, points: Tensor) -> Tensor:
    """Return (M, A) bool: the point lies inside the box, sides under 16 px enlarged."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).clamp(min=MINIMUM_SIDE) / 2
    near, far = centre - half, centre + half
    x, y = points.T.contiguous()
    inside: Tensor = (x > near[:, :1]) & (x < far[:, :1])
    inside &= (y > near[:, 1:]) & (y < far[:, 1:])
    return inside


def _maximum(index: Tensor, value: Tensor, size: int) -> Tensor:
    return value.new_zeros(size).scatter_reduce(0, index, value, "amax")


def _largest_overlap(key: Tensor, target: Tensor, overlap: Tensor, size: int) -> Tensor:
    """Return (size,) the object of largest overlap at each key, the first of equals."""
    best = overlap == _maximum(key, overlap, size)[key]
    first = target.new_full((size,), torch.iinfo(target.dtype).max)
    return first.scatter_reduce(0, key[best], target[best], "amin")


def _owners(key: Tensor, target: Tensor, strongest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the keys that are claimed, in order, and the one object that gets each."""
    claims = torch.bincount(key, minlength=strongest.shape[0])
    owner = torch.empty_like(strongest).index_put_((key,), target)
    owner = torch.where(claims > 1, strongest, owner)
    claimed = claims.nonzero().squeeze(1)
    return claimed, owner[claimed]
