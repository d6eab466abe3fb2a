"""What all stages share that add a penalty to the gradients."""

from abc import abstractmethod
from collections.abc import Collection
from typing import Any, Generic, Protocol, TypeVar

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.callbacks._calendar import epochs_in_words
from lightning_prune.callbacks._schedule import check_end
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.precision import loss_scale


class Penalty(Protocol):
    """A penalty at work on a live model."""

    def apply(self, own: Collection[int], scale: Tensor | None, /) -> None:
        """Add its gradient to those parameters' gradients, which carry a scale; None: 1."""


PenaltyT = TypeVar("PenaltyT", bound=Penalty)


class RegularizingStage(PruningStage, Generic[PenaltyT]):
    """A stage with a penalty: adds it once per optimizer step, and knows what maskers hold.

    Args:
        start_epoch: First epoch (0-based) with the penalty.
        end_epoch: First epoch without it; None: no such epoch.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, start_epoch: int, end_epoch: int | None) -> None:
        check_end(end_epoch, start_epoch + 1)
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self._cut = False
        self._regularization: PenaltyT | None = None
        self._knows_masks = False

    def _let_go(self) -> None:
        self._regularization = None

    def calendar(self, pl_module: pl.LightningModule, cuts: bool) -> str | None:
        """Return when channels are regularized, in words; None: not any more."""
        if self._cut and self._regularization is None:  # a run resumed behind the cut that ends it
            return None
        last = None if self.end_epoch is None else self.end_epoch - 1
        return f"channels are regularized {epochs_in_words(self.start_epoch, last)}"

    def doing(self, epoch: int) -> str | None:
        """Return whether an epoch had the penalty, in a word."""
        return "regularize" if self._regularization is not None and self._is_on(epoch) else None

    def _is_on(self, epoch: int) -> bool:
        return epoch >= self.start_epoch and (self.end_epoch is None or epoch < self.end_epoch)

    @abstractmethod
    def _follow_masks(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, regularization: PenaltyT
    ) -> None:
        """Leave out what maskers hold at zero."""

    @abstractmethod
    def _log(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, regularization: PenaltyT
    ) -> None:
        """Log what the epoch has come to."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Inspect the masks again before the epoch's first step."""
        # Not here: maskers that stand behind in the list decide after this hook.
        self._knows_masks = False

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Add the penalty to the gradients of this optimizer's parameters."""
        if self._regularization is None or not self._is_on(trainer.current_epoch):
            return
        self._read_masks(trainer, pl_module, self._regularization)
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._regularization.apply(own, loss_scale(trainer, optimizer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what the epoch has come to."""
        if self._regularization is not None:
            self._read_masks(trainer, pl_module, self._regularization)
            self._log(trainer, pl_module, self._regularization)

    def _read_masks(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, regularization: PenaltyT
    ) -> None:
        if not self._knows_masks:
            self._follow_masks(trainer, pl_module, regularization)
            self._knows_masks = True

    def state_dict(self) -> dict[str, Any]:
        """Return whether channels were cut."""
        return {"cut": self._cut}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore whether channels were cut."""
        self._cut = state_dict["cut"]
