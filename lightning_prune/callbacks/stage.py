"""What all pruning callbacks share."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lightning_prune.callbacks._readable_files import check_hyper_parameters
from lightning_prune.callbacks._trainer_surgery import (
    check_order,
    refuse_callbacks,
    refuse_strategy,
)
from lightning_prune.callbacks.finite_watch import watch_weights
from lightning_prune.surgery.architecture import track_architecture


class PruningStage(Callback):
    """A stage of pruning: refuses what it cannot work with before training starts."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check strategy and order, and make the module's checkpoints describe themselves.

        Raises:
            ValueError: a strategy that shards parameters, Lightning's own pruning, a callback in
                the wrong place, or hyper-parameters that no checkpoint can hold.
        """
        # For validation and test too: ckpt_path may be a file of the cut model.
        track_architecture(pl_module)
        if stage == "fit":
            refuse_strategy(trainer)
            refuse_callbacks(trainer)
            check_order(trainer, PruningStage)
            check_hyper_parameters(trainer, pl_module)
            watch_weights(trainer)
