"""What all stages share that hold channels at zero."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks._observation import recalibrate
from lightning_prune.callbacks._trainer_surgery import (
    callbacks_of,
    mask_averages,
    restore_averages,
    save_validated_weights,
)
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.mask import ChannelMask


class MaskingStage(PruningStage):
    """A stage with a plan: holds it at zero in the model and its averages until the cut.

    What is masked is remembered, in checkpoints too, so that ``unprune`` can bring it back.

    Args:
        recalibrate_images: Training images from which norm statistics are estimated anew; 0: never.
        dense_checkpoint: Where the dense model is saved before the first mask; None: nowhere.

    Attributes:
        finished: Whether the masks may be cut out.
    """

    def __init__(self, recalibrate_images: int, dense_checkpoint: str | None) -> None:
        self.recalibrate_images = recalibrate_images
        self.dense_checkpoint = dense_checkpoint
        self.finished = False
        self._cut = False
        self._mask: ChannelMask | None = None
        self._originals: dict[str, Any] | None = None

    @property
    @abstractmethod
    def plan(self) -> PruningPlan:
        """What is held at zero: empty before the first step and after the cut."""

    @property
    @abstractmethod
    def groups(self) -> ChannelGroups | None:
        """The channel groups of the model, once training has started."""

    @abstractmethod
    def _forget(self, names: Iterable[str]) -> None:
        """Take groups out of the plan for good."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Follow optimizers that were rebuilt: a new one knows nothing of the masks."""
        if self._mask is not None and not self._mask.holds(trainer.optimizers):
            self._mask.hold(trainer.optimizers)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Let go of the masks: the channels are gone."""
        if self._mask is not None:
            self._mask.release()
        self._mask, self._originals, self._cut = None, None, True

    def unprune(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        names: Iterable[str] | None = None,
    ) -> None:
        """Lift masks before the cut: rows, norms and their statistics are what they were.

        The groups train freely from then on and are not masked again. Averaged copies get the
        same values. With ``recalibrate_images`` the norm statistics are estimated anew afterwards.

        Args:
            trainer: The running Trainer.
            pl_module: Its module.
            names: Groups to free; None: all.

        Raises:
            KeyError: a group has no mask.
        """
        if self._mask is None:
            rank_zero_warn(f"{type(self).__name__}.unprune has no effect: no channel is masked")
            return
        lifted = list(self._mask.plan.keep) if names is None else list(names)
        groups, plan, originals = self.groups, self._mask.plan, self._mask.originals()
        assert groups is not None
        self._mask = self._mask.restore(lifted)
        restore_averages(trainer, groups, plan, originals, lifted)
        self._forget(lifted)
        self._originals = self._mask.originals()
        self._mask.hold(trainer.optimizers)
        for other in callbacks_of(trainer):
            if isinstance(other, MaskingStage) and other._mask is not None:
                other._mask.apply()  # a restored row may hold columns that another stage masks
        if self.recalibrate_images:
            recalibrate(trainer, pl_module, self.recalibrate_images)

    def _hold(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold the plan as it is now, in the model and its averages."""
        assert self.groups is not None
        if self._mask is not None:
            self._mask.release()
        self._mask = ChannelMask(pl_module, self.groups, self.plan)
        self._mask.remember(self._originals)
        self._originals = self._mask.originals()
        self._mask.hold(trainer.optimizers)
        mask_averages(trainer, self.groups, self.plan)

    def _save_dense(self, trainer: pl.Trainer) -> None:
        if self.dense_checkpoint is not None:
            save_validated_weights(trainer, self.dense_checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress, and what is masked as it was before, as plain data."""
        return {"finished": self.finished, "cut": self._cut, "originals": self._originals}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the progress."""
        self.finished = state_dict["finished"]
        self._cut = state_dict["cut"]
        # Checkpoints of earlier versions have none.
        self._originals = state_dict.get("originals")
