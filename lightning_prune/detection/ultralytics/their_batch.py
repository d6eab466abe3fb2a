"""A batch of this project as the dictionary that losses of Ultralytics take, and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_OWN = ("image", "label", "box")


def their_batch(images: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a batch under their names.

    Args:
        images: (B, C, H, W) in [0, 1].
        targets: ``image`` (M,), ``label`` (M,), ``box`` (M, 4) as centre and size in [0, 1]; what
            else is there, such as ``masks``, is passed on.

    >>> targets = {"image": torch.tensor([0]), "label": torch.tensor([2]), "box": torch.ones(1, 4)}
    >>> their_batch(torch.zeros(1, 3, 32, 32), targets)["cls"]
    tensor([[2.]])
    """
    device = images.device
    return {
        "img": images,
        "batch_idx": targets["image"].to(device, torch.float32),
        "cls": targets["label"].to(device, torch.float32).reshape(-1, 1),
        "bboxes": targets["box"].to(device, torch.float32),
        **{key: value for key, value in targets.items() if key not in _OWN},
    }


def our_batch(batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what their collate function gave as a batch of this project.

    Args:
        batch: ``img`` uint8 or in [0, 1], ``batch_idx``, ``cls``, ``bboxes``; tensors that are
            there besides, such as ``masks``, are kept, other things are not.
    """
    images: Tensor = batch["img"]
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    own = {
        "image": batch["batch_idx"].long(),
        "label": batch["cls"].reshape(-1).long(),
        "box": batch["bboxes"].float(),
    }
    taken = ("img", "batch_idx", "cls", "bboxes")
    rest = {k: v for k, v in batch.items() if isinstance(v, Tensor) and k not in taken}
    return images, own | rest


def named_parts(items: Any) -> dict[str, Tensor]:
    """Return the parts of a loss by name; older versions give a vector."""
    if isinstance(items, dict):
        return {name.removesuffix("_loss"): value.detach() for name, value in items.items()}
    values = items.detach().reshape(-1)
    names = {3: ("box", "cls", "dfl"), 4: ("box", "seg", "cls", "dfl")}.get(len(values))
    names = names or tuple(f"part{index}" for index in range(len(values)))
    return dict(zip(names, values, strict=True))
