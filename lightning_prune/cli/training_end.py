"""What a run knows when training ends, also where it ended before an interruption."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar


class TrainingEnd(pl.Callback):
    """Remember the metrics in checkpoints, and complete a training that had ended before.

    A run may be killed between the last checkpoint of its training and its result. When it is
    resumed, Lightning finds nothing to train, calls no hook and knows no metric.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._reached = False

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics as they were when the checkpoint was written."""
        return {"metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the metrics."""
        self.metrics = dict(state_dict["metrics"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the metrics; checkpoints are written behind this hook."""
        if not trainer.sanity_checking:
            self._remember(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the means of the epoch too."""
        self._remember(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record that training ended in this process."""
        self._reached = True
        self._remember(trainer)

    def complete(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        """Call ``on_train_end`` of all callbacks where the fit had nothing left to train."""
        if self._reached:
            return
        for callback in list(getattr(trainer, "callbacks")):  # noqa: B009 - not in the stubs
            if callback is not self and not isinstance(callback, ProgressBar):
                callback.on_train_end(trainer, model)

    def _remember(self, trainer: pl.Trainer) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.metrics.update(found)
