"""Cross-entropy and soft Dice of class maps, over the pixels that count."""

from typing import NamedTuple

import torch
from torch import Tensor

_SMOOTH = 1.0  # pixels


class SegmentationLoss(NamedTuple):
    """The two parts of the loss of a batch.

    Attributes:
        cross_entropy: Scalar, mean over pixels, in nats.
        dice: Scalar, mean over classes, in [0, 1].
    """

    cross_entropy: Tensor
    dice: Tensor


def segmentation_loss(logits: Tensor, target: Tensor, ignore_index: int) -> SegmentationLoss:
    r"""Compute cross-entropy and soft Dice loss of class maps.

    .. math:: L_{CE} = -\frac{1}{|V|} \sum_{i \in V} \log p_{i t_i}, \quad
        L_{Dice} = 1 - \frac{1}{|C|} \sum_{c \in C} \frac{2 \sum_{i \in V} p_{ic} [t_i = c] + 1}
        {\sum_{i \in V} p_{ic} + \sum_{i \in V} [t_i = c] + 1}

    with V the pixels of the whole batch whose target t is not ``ignore_index``, p the softmax of
    the logits and C the classes that occur in V. Both are 0 where V is empty.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64, classes in 0..K-1 or ``ignore_index``.
        ignore_index: Target of pixels that do not count.

    Raises:
        ValueError: a target is neither a class nor ``ignore_index``, or the shapes do not fit.

    Source: F. Milletari et al., 2016, V-Net, arXiv 1606.04797 (soft Dice; here without squares).

    >>> sure = segmentation_loss(torch.tensor([[[[-2.0]], [[2.0]]]]), torch.tensor([[[1]]]), 255)
    >>> [round(part.item(), 4) for part in sure]
    [0.0181, 0.006]
    >>> even = segmentation_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), 255)
    >>> [round(part.item(), 4) for part in even]  # log 2, and 1 - (2 * 0.5 + 1) / (1 + 1 + 1)
    [0.6931, 0.3333]
    """
    _check(logits, target, ignore_index)
    classes = logits.shape[1]
    log_p = logits.float().log_softmax(1)
    valid = target != ignore_index
    weight = valid.to(log_p)
    known = torch.where(valid, target, 0)
    own = log_p.gather(1, known[:, None]).squeeze(1)  # (B, H, W)
    cross_entropy = -(own * weight).sum() / weight.sum().clamp_min(1)
    # Sums by class of one value a pixel: K maps of ones and zeros would be as large as the logits.
    pixels = torch.bincount(target[valid], minlength=classes).to(log_p)
    hits = log_p.new_zeros(classes).index_add(0, known.flatten(), (own.exp() * weight).flatten())
    mass = (log_p.exp() * weight[:, None]).sum((0, 2, 3))
    there = pixels > 0
    overlap = (2 * hits + _SMOOTH) / (mass + pixels + _SMOOTH)
    dice = ((1 - overlap) * there).sum() / there.sum().clamp_min(1)
    return SegmentationLoss(cross_entropy, dice)


def _check(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    shape = (logits.shape[0], *logits.shape[2:])
    if logits.ndim != 4 or tuple(target.shape) != shape:
        raise ValueError(
            f"masks of shape {tuple(target.shape)} for logits of shape {tuple(logits.shape)}: pass "
            "masks (B, H, W) for logits (B, K, H, W)"
        )
    wrong = (target != ignore_index) & ((target < 0) | (target >= logits.shape[1]))
    if wrong.any():
        raise ValueError(
            f"a mask has the value {int(target[wrong][0])}, and there are {logits.shape[1]} "
            f"classes: pass classes from 0 to {logits.shape[1] - 1}, or {ignore_index} for pixels "
            "that do not count"
        )
