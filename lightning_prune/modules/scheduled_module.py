"""A LightningModule with one optimizer and a learning rate that follows a schedule."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim.lr_scheduler import LambdaLR

from lightning_prune.functional.schedule import learning_rate_factor
from lightning_prune.runs.checkpoint.load_checked import class_only, load_checked
from lightning_prune.runs.trainer.fit_state import is_in_a_fit


class ScheduledModule(L.LightningModule):
    """Base of modules whose learning rate warms up and decays, step by step.

    Subclasses build the optimizer and have the hyper-parameters ``schedule``, ``schedule_epochs``,
    ``warmup_epochs`` and ``final_lr``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._schedule_start = 0
        self._resumed_start: int | None = None

    @class_only
    def load_from_checkpoint(
        cls, checkpoint_path: Any, *arguments: Any, weights_only: bool | None = None, **options: Any
    ) -> Self:
        """Load a module as Lightning does, from a file that was checked; nothing is executed.

        Args:
            checkpoint_path: The checkpoint, of a dense or of a cut module.
            arguments: As in Lightning: ``map_location``, ``hparams_file``, ``strict``.
            weights_only: False executes what is pickled in a file that you trust.
            options: The same by name, and hyper-parameters that replace those of the file.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is torn, altered, no checkpoint, or holds pickled objects.
        """
        names = ("map_location", "hparams_file", "strict")
        options |= dict(zip(names, arguments, strict=False))
        load = super().load_from_checkpoint
        return load_checked(load, checkpoint_path, weights_only, **options)

    @abstractmethod
    def make_optimizer(self) -> torch.optim.Optimizer:
        """Build the optimizer of the trained parameters."""

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer and a schedule that steps with it.

        Called again in the middle of a run, the schedule starts over and covers the steps that
        remain; checkpoints remember where it started.
        """
        optimizer = self.make_optimizer()
        total = self.trainer.estimated_stepping_batches
        start = self.trainer.global_step if self._resumed_start is None else self._resumed_start
        self._schedule_start, self._resumed_start = start, None
        if math.isfinite(total):
            factor = self._factor_function(int(total), start)
        else:
            warnings.warn(
                "a run without end has no schedule, the learning rate stays constant: set "
                "max_epochs or max_steps",
                stacklevel=2,
            )
            factor = _constant
        scheduler = LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _factor_function(self, total: int, start: int) -> Callable[[int], float]:
        """Return step -> factor; it follows ``trainer.max_epochs`` where that changes later."""
        hparams = dict(self.hparams)
        epochs = self.trainer.max_epochs or 0
        per_epoch = total / epochs if epochs > 0 else 0.0

        def factor(step: int) -> float:
            limit = self.trainer.max_epochs or 0
            if start == 0 and hparams["schedule_epochs"]:
                limit = min(limit, hparams["schedule_epochs"])
            end = round(per_epoch * limit) if epochs > 0 and limit > 0 else total
            span = max(end - start, 1)
            warmup = min(round(hparams["warmup_epochs"] * per_epoch), span // 3)
            return learning_rate_factor(
                step, span, warmup, hparams["final_lr"], hparams["schedule"]
            )

        return factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember where the schedule started."""
        checkpoint["schedule_start"] = self._schedule_start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume the schedule where it started."""
        # Before configure_optimizers, at which time global_step is not yet restored.
        if is_in_a_fit(self):
            self._resumed_start = int(checkpoint.get("schedule_start", 0))


def _constant(step: int) -> float:
    return 1.0
