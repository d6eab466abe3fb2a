"""A cut in everything that a Trainer holds."""

import lightning.pytorch as pl

from lightning_prune.callbacks.trainer.averages import averaged_copies, restart_averages
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
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
