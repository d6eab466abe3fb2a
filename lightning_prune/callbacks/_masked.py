"""What the stages hold at zero, for callbacks that write weights."""

import lightning.pytorch as pl

from lightning_prune.callbacks.pipeline import Pipeline


def apply_masks(trainer: pl.Trainer) -> None:
    """Zero again what the stages hold at zero: it may have been given something."""
    Pipeline.of(trainer).apply_masks()
