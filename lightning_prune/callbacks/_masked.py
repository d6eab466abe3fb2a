"""What the stages hold at zero, for callbacks that write weights."""

import lightning.pytorch as pl

from lightning_prune.callbacks.trainer.cut import maskers
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.surgery.held_mask import HeldMask
from lightning_prune.surgery.mask import removed_positions


def masked_channels(trainer: pl.Trainer) -> dict[str, set[int]]:
    """Return the output channels of each layer that maskers hold at zero."""
    found: dict[str, set[int]] = {}
    for masker in maskers(trainer):
        groups = getattr(masker, "groups", None)
        if groups is None:
            continue
        for name in masker.plan.keep:
            for layer, role, index in removed_positions(groups[name], masker.plan):
                if role != "consumer":
                    found.setdefault(layer, set()).update(index.tolist())
    return found


def apply_masks(trainer: pl.Trainer) -> None:
    """Zero again what the stages hold at zero: it may have been given something."""
    for callback in callbacks_of(trainer):
        mask = getattr(callback, "_mask", None)
        if isinstance(mask, HeldMask):
            mask.apply()
