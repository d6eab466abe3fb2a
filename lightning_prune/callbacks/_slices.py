"""What the slice stages know of the channel maskers beside them."""

from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_prune.callbacks.trainer.cut import maskers
from lightning_prune.policies.layers.slice_layers import living_weights


def living(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Tensor]:
    """Mark what the channels that maskers hold at zero leave of each weight."""
    left: dict[str, Tensor] = {}
    for masker in maskers(trainer):
        groups = getattr(masker, "groups", None)
        if groups is None or not masker.plan:
            continue
        for name, mask in living_weights(pl_module, groups, masker.plan).items():
            left[name] = left[name] & mask if name in left else mask
    return left


def warn_of_widths(trainer: pl.Trainer, stage: str, block_size: int) -> None:
    """Warn of channel maskers that may leave widths which the block size does not divide."""
    for masker in maskers(trainer):
        step = getattr(masker, "round_to", None)
        if step is not None and step % block_size:
            rank_zero_warn(
                f"{stage}(block_size={block_size}) beside {type(masker).__name__}(round_to={step}):"
                " a layer that is left with a number of filters that the block size does not "
                "divide is passed over from then on; set round_to to a multiple of block_size"
            )


def warn_of_indivisible(stage: str, names: Sequence[str], block_size: int, told: set[str]) -> None:
    """Say once for each layer that it is passed over."""
    new = [name for name in names if name not in told]
    told.update(new)
    if new:
        rank_zero_warn(
            f"{stage} passes over {', '.join(new)}: channel pruning left a number of filters that "
            f"block_size={block_size} does not divide. What is held at zero there stays; set the "
            "channel masker's round_to to a multiple of block_size to go on"
        )
