"""What networks of Ultralytics give in eval mode, in one form."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


def predictions(network: nn.Module, out: Any, num_classes: int, images: Tensor) -> Tensor:
    """Return boxes and class probabilities (B, 4 + nc, A), pixels, centre and size.

    Heads give one of three forms: (B, 4 + nc + ..., A); after a choice of their own (B, k, 6) as
    corners, score and class; RT-DETR's decoder boxes in [0, 1] and logits of every layer.

    Args:
        network: The network.
        out: What it gave in eval mode.
        num_classes: Number of classes, nc.
        images: What it was given, (B, C, H, W).
    """
    if is_transformer(network):
        boxes, logits = out[1][0][-1], out[1][1][-1]
        height, width = images.shape[-2:]
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        return torch.cat([boxes, logits.sigmoid()], -1).transpose(1, 2)
    first = first_tensor(out)
    if not getattr(network, "end2end", False):
        return first[:, : 4 + num_classes]
    low, high, score, label = first[..., :2], first[..., 2:4], first[..., 4:5], first[..., 5]
    scores = score * one_hot(label.long(), num_classes).to(score.dtype)
    return torch.cat([(low + high) / 2, high - low, scores], -1).transpose(1, 2)


def with_prototypes(boxes: Tensor, out: Any, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a network that segments gives: boxes, mask coefficients and prototypes.

    Args:
        boxes: As ``predictions`` gives them, (B, 4 + nc, A).
        out: What the network gave in eval mode.
        num_classes: Number of classes, nc.
    """
    first, raw = first_tensor(out), out[1]
    if first.shape[1] > 4 + num_classes:
        coefficients = first[:, 4 + num_classes :]
    else:  # chosen already: (B, k, 6 + coefficients)
        coefficients = first[..., 6:].transpose(1, 2)
    raw = raw.get("one2one", raw) if isinstance(raw, dict) else raw
    return boxes, coefficients, raw["proto"] if isinstance(raw, dict) else raw[-1]


def chooses(network: nn.Module) -> bool:
    """Return whether a network gives each object once, so that nothing has to be suppressed."""
    return is_transformer(network) or bool(getattr(network, "end2end", False))


def is_transformer(network: nn.Module) -> bool:
    """Return whether it is an RT-DETR."""
    return type(network).__name__ == "RTDETRDetectionModel"


def first_tensor(out: Any) -> Tensor:
    """Return the first tensor of nested tuples, lists and dictionaries."""
    while not isinstance(out, Tensor):
        out = next(iter(out.values())) if isinstance(out, dict) else out[0]
    return out
