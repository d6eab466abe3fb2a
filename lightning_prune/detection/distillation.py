"""What a dense detector says of pictures without labels, and how far another one agrees."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_prune.detection.average_precision import DetectionAveragePrecision

# Anchors of the strides 8, 16 and 32 for each one of stride 32.
_LEVELS = (4, 2, 1)
_ANCHORS = 21
_LEAST = 1e-6


def class_saliency(predictions: Tensor) -> Tensor | None:
    """Return how sure a detector is that something is at each place, (B, h, w), in [0, 1].

    The largest probability of a class at the anchors of all three levels, at the size of the finest
    one. The sides of an image are found by where its boxes are.

    Args:
        predictions: (B, 4 + nc, A) with the anchors of strides 8, 16 and 32 row by row; None comes
            of other numbers of anchors.

    >>> x = (torch.arange(64) % 8 + 0.5) * 8  # two rows and two columns at stride 32
    >>> boxes = torch.zeros(1, 6, 84)
    >>> boxes[0, 0, :64] = x
    >>> class_saliency(boxes).shape, class_saliency(torch.zeros(1, 6, 300))
    (torch.Size([1, 8, 8]), None)
    """
    sizes = _coarsest(predictions)
    if sizes is None:
        return None
    height, width = sizes
    sure = predictions[:, 4:].amax(1)
    finest = sure.new_zeros(len(sure), height * _LEVELS[0], width * _LEVELS[0])
    start = 0
    for scale in _LEVELS:
        count = height * width * scale**2
        level = sure[:, start : start + count].view(-1, 1, height * scale, width * scale)
        start += count
        wide = F.interpolate(level, scale_factor=_LEVELS[0] // scale)[:, 0]
        finest = torch.maximum(finest, wide)
    return finest


def _coarsest(predictions: Tensor) -> tuple[int, int] | None:
    """Return rows and columns of the anchors of stride 32."""
    total = predictions.shape[2]
    if total == 0 or total % _ANCHORS:
        return None
    cells = total // _ANCHORS
    x = predictions[:, 0, : cells * _LEVELS[0] ** 2].mean(0)
    best: tuple[tuple[float, int], int] | None = None
    for height in range(1, cells + 1):
        if cells % height:
            continue
        columns = cells // height * _LEVELS[0]
        centres = (torch.arange(len(x), device=x.device) % columns + 0.5) * 8
        off = (float((x - centres).abs().mean()), abs(height - cells // height))
        if best is None or off < best[0]:
            best = off, height
    assert best is not None
    return best[1], cells // best[1]


def detection_distillation_loss(predictions: Tensor, dense: Tensor) -> Tensor:
    r"""Return how far predictions are from those of the dense network.

    .. math:: \frac{\sum BCE(p, \hat p)}{\sum BCE(\hat p, \hat p)} - 1 +
        \frac{\sum_a \hat c_a \, smooth_{L1}((b_a - \hat b_a) / \hat s_a)}{\sum_a \hat c_a}

    with p the class probabilities, b the boxes, c the largest probability of an anchor and s the
    mean side of its box; a hat is the dense network's.

    Args:
        predictions: (B, 4 + nc, A), boxes as centre x, centre y, width, height, then probabilities.
        dense: The same of the dense network.

    Source: Q. Yang, H. Zhu, et al., 2023, Bridging Cross-task Protocol Inconsistency for
    Distillation in Dense Object Detection, ICCV, arXiv 2308.14286 (classes by binary cross
    entropy).

    >>> same = torch.tensor([[[5.0], [5.0], [2.0], [2.0], [0.9]]])
    >>> round(detection_distillation_loss(same, same).item(), 6)
    0.0
    """
    wanted = dense[:, 4:].clamp(_LEAST, 1 - _LEAST)
    given = predictions[:, 4:].clamp(_LEAST, 1 - _LEAST)
    cross = F.binary_cross_entropy(given, wanted, reduction="sum")
    least = F.binary_cross_entropy(wanted, wanted, reduction="sum")
    sure = dense[:, 4:].amax(1)
    side = dense[:, 2:4].mean(1).clamp(min=1.0)
    off = (predictions[:, :4] - dense[:, :4]) / side[:, None]
    moved = F.smooth_l1_loss(off, torch.zeros_like(off), reduction="none", beta=0.1).sum(1)
    boxes = (sure * moved).sum() / sure.sum().clamp(min=_LEAST)
    return cross / least.clamp(min=_LEAST) - 1.0 + boxes


def detection_agreement(
    found: Sequence[Sequence[Tensor]], dense: Sequence[Sequence[Tensor]], confidence: float
) -> float:
    """Return mAP50-95 of detections against those of the dense network, taken for objects.

    Where the dense network is sure of nothing, 1 if the other one is not either, else 0.

    Args:
        found: For each batch and image (n, 6): x1, y1, x2, y2, score, class.
        dense: The same of the dense network.
        confidence: A detection of the dense network is an object above it.

    >>> box = torch.tensor([[10.0, 10.0, 50.0, 50.0, 0.9, 0.0]])
    >>> round(detection_agreement([[box]], [[box]], 0.25), 3)
    1.0
    """
    if not any(bool((one[:, 4] > confidence).any()) for batch in dense for one in batch):
        sure = any(bool((one[:, 4] > confidence).any()) for batch in found for one in batch)
        return float(not sure)
    metric = DetectionAveragePrecision()
    for mine, theirs in zip(found, dense, strict=True):
        objects = [one[one[:, 4] > confidence] for one in theirs]
        metric.update(
            [{"boxes": f[:, :4], "scores": f[:, 4], "labels": f[:, 5].long()} for f in mine],
            [{"boxes": one[:, :4], "labels": one[:, 5].long()} for one in objects],
        )
    return float(metric.summary()["map50_95"])
