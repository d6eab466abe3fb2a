"""From decoded predictions to detections: confidence threshold and non-maximum suppression."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, nms

from lightning_prune.arguments import Count, Overlap, Threshold
from lightning_prune.validation import validated

MAX_CANDIDATES = 30_000
"""Boxes per image that enter the suppression, the most confident first."""


class Candidates(NamedTuple):
    """Boxes of a batch above a confidence, N in number, ordered by image.

    Attributes:
        image: (N,) int64, index in the batch.
        box: (N, 4) float32, x1, y1, x2, y2 in pixels.
        score: (N,) float32, class probability.
        label: (N,) int64, class.
    """

    image: Tensor
    box: Tensor
    score: Tensor
    label: Tensor


def find_candidates(
    predictions: Tensor, confidence: float, multi_label: bool = False
) -> Candidates:
    """Return the boxes whose class probability is above a confidence.

    Args:
        predictions: (B, 4 + nc, A) as decoded by the network.
        confidence: In [0, 1), exclusive threshold.
        multi_label: Every class above the threshold makes a box of its own, instead of the best
            class only.
    """
    scores = predictions[:, 4:]
    if multi_label and scores.shape[1] > 1:
        image, anchor, label = (scores.transpose(1, 2) > confidence).nonzero(as_tuple=True)
        score = scores[image, label, anchor]
    else:
        best, best_label = scores.max(dim=1)
        image, anchor = (best > confidence).nonzero(as_tuple=True)
        score, label = best[image, anchor], best_label[image, anchor]
    box = box_convert(predictions[image, :4, anchor], "cxcywh", "xyxy")
    return Candidates(image, box, score, label)


@torch.no_grad()
def clip_boxes(detections: Tensor, height: int, width: int) -> Tensor:
    """Cut boxes at the borders of the image.

    Args:
        detections: (n, 6): x1, y1, x2, y2 in pixels, then anything.
        height: Of the image in pixels.
        width: Of the image in pixels.

    >>> clip_boxes(torch.tensor([[-2.0, 1.0, 9.0, 5.0, 0.5, 0.0]]), height=4, width=8).tolist()
    [[0.0, 1.0, 8.0, 4.0, 0.5, 0.0]]
    """
    limit = detections.new_tensor([width, height, width, height])
    return torch.cat((detections[:, :4].clamp(min=0).minimum(limit), detections[:, 4:]), dim=1)


@validated
def non_maximum_suppression(
    predictions: Tensor,
    confidence: Threshold = 0.25,
    iou: Overlap = 0.7,
    max_detections: Count = 300,
    multi_label: bool = False,
    class_agnostic: bool = False,
) -> list[Tensor]:
    """Turn decoded predictions into detections.

    Args:
        predictions: (B, 4 + nc, A): centre x, centre y, width, height in pixels, then one
            probability per class.
        confidence: In [0, 1), boxes must be above it.
        iou: In [0, 1], a box that overlaps a better one of its class by more is dropped.
        max_detections: Largest number of detections per image.
        multi_label: Every class above the threshold makes a box of its own.
        class_agnostic: Boxes of different classes suppress one another.

    Returns:
        Per image (n, 6) float32: x1, y1, x2, y2 in pixels, confidence, class; best first.

    Raises:
        ValueError: an argument is out of range.

    >>> boxes = torch.tensor([[10., 10, 8, 8, .9], [11, 10, 8, 8, .6], [30, 30, 4, 4, .3]])
    >>> non_maximum_suppression(boxes.T[None], iou=0.5)[0].tolist()  # doctest: +ELLIPSIS
    [[6.0, 6.0, 14.0, 14.0, 0.899..., 0.0], [28.0, 28.0, 32.0, 32.0, 0.300..., 0.0]]
    """
    if predictions.ndim != 3 or predictions.shape[1] < 5:
        raise ValueError(
            f"predictions of shape {tuple(predictions.shape)}: pass (batch, 4 + classes, anchors)"
        )
    found = find_candidates(predictions.float(), confidence, multi_label)
    counts = torch.bincount(found.image, minlength=predictions.shape[0]).tolist()
    detections = []
    columns = (found.box, found.score, found.label)
    for box, score, label in zip(*(torch.split(c, counts) for c in columns), strict=True):
        if score.numel() > MAX_CANDIDATES:
            score, order = score.topk(MAX_CANDIDATES)
            box, label = box[order], label[order]
        keep = nms(box, score, iou) if class_agnostic else batched_nms(box, score, label, iou)
        keep = keep[:max_detections]
        kept = (box[keep], score[keep, None], label[keep, None].to(box.dtype))
        detections.append(torch.cat(kept, dim=1))
    return detections
