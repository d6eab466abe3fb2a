"""What all stages share that hold a mask on the weights while the model trains."""

from typing import Any, Generic, TypeVar

import lightning.pytorch as pl

from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.surgery.held_mask import HeldMask

Mask = TypeVar("Mask", bound=HeldMask)


class HoldingStage(PruningStage, Generic[Mask]):
    """A stage with a mask that follows the optimizers."""

    def __init__(self) -> None:
        self._cut = False
        self._mask: Mask | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Follow optimizers that were rebuilt: a new one knows nothing of the masks."""
        if self._mask is not None and not self._mask.holds(trainer.optimizers):
            self._mask.hold(trainer.optimizers)
