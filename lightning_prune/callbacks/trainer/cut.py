"""A cut in everything that a Trainer holds, and who hears of it."""

from typing import Any

import lightning.pytorch as pl

from lightning_prune.callbacks.trainer.averages import averaged_copies, restart_averages
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.surgery.cut import PrunedChannels, cut_channels
from lightning_prune.surgery.optimizer import assert_bound, rebind_optimizer


def cut_everywhere(
    trainer: pl.Trainer, pl_module: pl.LightningModule, groups: ChannelGroups, plan: PruningPlan
) -> PrunedChannels:
    """Cut the live model and its averaged copies, and re-bind the optimizers; DDP by ``rewrap``.

    Raises:
        RuntimeError: an optimizer still holds a parameter from before the cut.
    """
    for copy in averaged_copies(trainer):
        cut_channels(copy, groups, plan)
    pruned = cut_channels(pl_module, groups, plan)
    for optimizer in trainer.optimizers:
        rebind_optimizer(optimizer, pruned)
    assert_bound(trainer.optimizers, pruned)
    restart_averages(trainer, pl_module)
    return pruned


def tell(trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels) -> None:
    """Call ``on_channels_pruned`` on every callback, then on the module, where defined."""
    for listener in [*callbacks_of(trainer), pl_module]:
        hook = getattr(listener, "on_channels_pruned", None)
        if callable(hook):
            hook(trainer, pl_module, pruned)


def maskers(trainer: pl.Trainer) -> list[Any]:
    """Return the maskers: the callbacks with ``plan`` and ``finished``."""
    return [c for c in callbacks_of(trainer) if hasattr(c, "plan") and hasattr(c, "finished")]
