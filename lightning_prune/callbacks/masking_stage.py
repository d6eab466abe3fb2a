"""What all stages share that hold channels at zero."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks._arguments import check_mac_target
from lightning_prune.callbacks._data import example_input
from lightning_prune.callbacks._gradients import check_gradients
from lightning_prune.callbacks._observation import recalibrate
from lightning_prune.callbacks._prunable_groups import prunable_groups
from lightning_prune.callbacks._schedule import warn_of_nothing_masked
from lightning_prune.callbacks.holding_stage import HoldingStage
from lightning_prune.callbacks.trainer.averages import (
    mask_averages,
    restore_averages,
    save_validated_weights,
)
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion, Need, why_unmet
from lightning_prune.policies.layers.layer_rule import LayerRule, check_layers, select_groups
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.mask import ChannelMask


class Selection(Protocol):
    """What chooses among the channels of groups."""

    @property
    def groups(self) -> ChannelGroups:
        """All groups of the model."""


By = TypeVar("By", bound=Selection)


class MaskingStage(HoldingStage[ChannelMask], Generic[By]):
    """A stage with a plan: holds it at zero in the model and its averages until the cut.

    What is masked is remembered, in checkpoints too, so that ``unprune`` can bring it back.

    Args:
        mac_target: Fraction of the dense model's MACs that remains, in (0, 1); None: no target.
        layers: Names or patterns of the layers to prune, or a rule; None: all prunable layers.
        criterion: How important a channel is.
        recalibrate_images: Training images from which norm statistics are estimated anew; 0: never.
        dense_checkpoint: Where the dense model is saved before the first mask; None: nowhere.

    Attributes:
        finished: Whether the masks may be cut out.
        collects: What the stage collects for criteria; one that needs more is refused.

    Raises:
        ValueError: an argument is out of range.
    """

    collects: frozenset[Need] = frozenset({"gradients", "batch_gradients"})

    def __init__(
        self,
        mac_target: float | None,
        layers: list[str] | LayerRule | None,
        criterion: Criterion,
        recalibrate_images: int,
        dense_checkpoint: str | None,
    ) -> None:
        super().__init__()
        check_layers(layers)
        check_mac_target(mac_target)
        self.mac_target = mac_target
        self.layers = layers
        self.criterion = criterion
        self.recalibrate_images = recalibrate_images
        self.dense_checkpoint = dense_checkpoint
        self.finished = False
        self._originals: dict[str, Any] | None = None
        self._selection: By | None = None
        self._macs: MacModel | None = None
        self._has_masked = False

    @property
    @abstractmethod
    def plan(self) -> PruningPlan:
        """What is held at zero: empty before the first step and after the cut."""

    @property
    def groups(self) -> ChannelGroups | None:
        """The channel groups of the model, once training has started."""
        return None if self._selection is None else self._selection.groups

    @abstractmethod
    def _choose_among(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        groups: ChannelGroups,
        names: tuple[str, ...],
        macs: MacModel,
    ) -> By:
        """Return what chooses among these groups, after all checks before training."""

    @abstractmethod
    def _forget(self, names: Iterable[str]) -> None:
        """Take groups out of the plan for good."""

    def _let_go(self) -> None:
        super()._let_go()
        self._selection, self._macs = None, None
        self._has_masked = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers and check the schedule and the MAC target before the first batch."""
        if pl_module.example_input_array is not None:
            self._prepare(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where a run ends before the first mask, or with masks that were not cut out."""
        if self._cut or self.finished or trainer.interrupted:
            return
        plan = self.plan
        if plan:
            removed = sum(len(plan.removed(name)) for name in plan.keep)
            rank_zero_warn(
                "training ends before the masks could be cut out: the model has its full width, "
                f"with {removed / sum(plan.channels.values()):.1%} of the channels of "
                f"{len(plan.keep)} groups held at zero. Train for more epochs, or lower end_epoch, "
                "start_epoch or hold_epochs"
            )
        elif not self._has_masked and self._skipped is None:
            start = getattr(self, "schedule").start_epoch  # noqa: B009 - of each stage's own kind
            warn_of_nothing_masked(trainer, type(self).__name__, start)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Let go of the masks: the channels are gone."""
        if self._mask is not None:
            self._mask.release()
        self._mask, self._originals, self._cut = None, None, True
        self._selection, self._macs = None, None

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

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._cut:
            return
        unmet = why_unmet(self.criterion, self.collects, f"{type(self).__name__} does not collect")
        if unmet is not None:
            raise ValueError(unmet)
        check_gradients(self.criterion, pl_module)
        example = example_input(trainer, pl_module)
        groups = prunable_groups(trainer, pl_module, example)
        if self._selection is not None and self._selection.groups.keys() == groups.keys():
            return
        self._check_held(groups)
        names = select_groups(self.layers, pl_module, groups)
        macs = MacModel.of(pl_module, groups, example)
        self._selection = self._choose_among(trainer, pl_module, groups, names, macs)
        self._macs = macs

    def _check_held(self, groups: ChannelGroups) -> None:
        """Refuse masks, of a resumed run, on groups that cannot be cut."""
        for name in self.plan.keep:
            if name not in groups:
                why = groups.refused.get(name, "the model has no such group")
                raise ValueError(
                    f"the resumed run masks group {name!r}, which cannot be cut ({why}): start "
                    "from the dense model, or leave the layer out of `layers`"
                )

    def _hold(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold the plan as it is now, in the model and its averages."""
        assert self.groups is not None
        if self._mask is not None:
            self._mask.release()
        self._mask = ChannelMask(pl_module, self.groups, self.plan)
        self._mask.remember(self._originals)
        self._originals = self._mask.originals()
        self._mask.hold(trainer.optimizers)
        self._has_masked = True
        mask_averages(trainer, self.groups, self.plan)

    def _save_dense(self, trainer: pl.Trainer) -> None:
        if self.dense_checkpoint is not None:
            save_validated_weights(trainer, self.dense_checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress, and what is masked as it was before, as plain data."""
        return {
            "finished": self.finished,
            "cut": self._cut,
            "originals": self._originals,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the progress."""
        self.finished = state_dict["finished"]
        self._cut = state_dict["cut"]
        # Checkpoints of earlier versions have neither.
        self._originals = state_dict.get("originals")
        self._skipped = state_dict.get("skipped")
