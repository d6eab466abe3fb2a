"""Warnings of slice stages beside channel maskers."""

from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.protocol import RoundingMasker


def warn_of_widths(trainer: pl.Trainer, stage: str, block_size: int) -> None:
    """Warn of channel maskers that may leave widths which the block size does not divide."""
    for masker in Pipeline.of(trainer).maskers:
        if isinstance(masker, RoundingMasker) and masker.round_to % block_size:
            rank_zero_warn(
                f"{stage}(block_size={block_size}) beside "
                f"{type(masker).__name__}(round_to={masker.round_to}): a layer that is left with a "
                "number of filters that the block size does not divide is passed over from then "
                "on; set round_to to a multiple of block_size"
            )


def warn_of_indivisible(
    stage: str, block_size: int, warned: set[str], names: Sequence[str]
) -> None:
    """Warn once of each layer that is left out."""
    new = [name for name in names if name not in warned]
    warned.update(new)
    if new:
        rank_zero_warn(
            f"{stage} passes over {', '.join(new)}: channel pruning left a number of filters that "
            f"block_size={block_size} does not divide. What is held at zero there stays; set the "
            "channel masker's round_to to a multiple of block_size to continue"
        )
