"""The mask stage of slice pruning: more and more slices of each layer are held at zero."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.arguments import Count, Epoch, PruningRatio
from lightning_prune.callbacks._calendar import epochs_in_words
from lightning_prune.callbacks._front_end import TrainerFrontEnd
from lightning_prune.callbacks._schedule import (
    last_epoch,
    refuse_late_start,
    warn_of_nothing_masked,
)
from lightning_prune.callbacks._slices import warn_of_indivisible, warn_of_widths
from lightning_prune.callbacks.holding_stage import HoldingStage
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.engine.slice_masking import SliceMasking
from lightning_prune.engine.steps import RatioSteps
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.policies.layers.slice_layers import SliceLayers, slice_layers
from lightning_prune.policies.selection.slice_selection import SliceSelection
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.validation import validated

Mode = Literal["prune", "unprune"]


class SliceMasker(HoldingStage[SliceMasking]):
    r"""Hold the slices with the smallest norms at zero, a larger share at every step.

    A slice is the ``block_size`` weights of the filters b, b + B, b + 2B, ... at one input channel
    and one place of the kernel (B = C_out / block_size). Of the S slices of each layer
    floor(ratio S) are held at zero, with

    .. math:: \text{ratio} = \text{pruning\_ratio} \cdot (j + 1) / n

    at the j-th (from 0) of the n epochs ``start_epoch``, ``start_epoch + epoch_rate``, ... <
    ``end_epoch``, and once more, with the whole ratio, at ``end_epoch``. Nothing is cut: slices
    bring **no speed on general hardware**; they pay on hardware that skips zero blocks.

    Channels that a masker holds at zero do not count among the slices. When channels are cut, what
    is held of the remaining weights stays held. Every epoch ``slices/ratio`` (of the latest step)
    and ``slices/zero_share`` (fraction of the layers' weights that slices hold at zero) are logged.

    Args:
        block_size: Weights per slice; divides the number of filters of each layer.
        start_epoch: First scheduled epoch (0-based).
        end_epoch: Epoch of the last look at the slices; scheduled epochs lie before it.
        epoch_rate: Epochs from one step to the next.
        pruning_ratio: Fraction of each layer's slices that is zeroed in the end, in (0, 1].
        gradually: True: the ratio rises by equal steps; False: it is the whole one at once.
        mode: ``unprune``: lift the masks that a resumed checkpoint holds, from ``start_epoch`` on;
            the weights are what they were before, and train freely.
        disable_first_index: Spare the first element of each kernel row (x = 0; all of a kernel
            that is one wide).
        layers: Names or patterns of the layers; with a leading ``!`` those that are left out;
            None: every convolution whose weight is trained.
        norm: Slices are compared by this norm: 1 or 2.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, a layer whose
            filters ``block_size`` does not divide, an unsupported strategy.

    Attributes:
        slice_share: Layer -> fraction of its weights that slices hold at zero, in [0, 1].

    Source: the slice pruning of SIRC's fork of Torch-Pruning.
    """

    acts_from = "start_epoch"

    @validated
    def __init__(
        self,
        block_size: Count = 8,
        start_epoch: Epoch = 0,
        end_epoch: Count = 10,
        epoch_rate: Count = 1,
        pruning_ratio: PruningRatio = 0.5,
        gradually: bool = True,
        mode: Mode = "prune",
        disable_first_index: bool = False,
        layers: SliceLayers = None,
        norm: Literal[1, 2] = 2,
    ) -> None:
        super().__init__()
        self.schedule = RatioSchedule(start_epoch, end_epoch, epoch_rate, pruning_ratio)
        self.block_size = block_size
        self.gradually = gradually
        self.mode: Mode = mode
        self.disable_first_index = disable_first_index
        self.layers = layers
        self.norm = norm
        self.slice_share: dict[str, float] = {}
        self._zero_fraction = 0.0
        self._cut = False

    @property
    def is_cut(self) -> bool:
        """Return whether channels were cut."""
        return self._cut

    def acts(self, epoch: int) -> bool:
        """Return whether slices are chosen at the start of an epoch."""
        return epoch in self._steps(()).epochs

    def ratio(self, epoch: int) -> float:
        """Return the fraction of slices that is zeroed at the start of an epoch."""
        return self._steps(()).ratio(epoch)

    def calendar(self, pl_module: pl.LightningModule, cuts: bool) -> str:
        """Return when slices are masked, in words."""
        return f"slices are masked {epochs_in_words(self.schedule.start_epoch, None)}"

    def doing(self, epoch: int) -> str | None:
        """Return what fraction of the weights is held at zero, in words."""
        return f"slices {self._zero_fraction:.0%} zero" if self._zero_fraction else None

    def _steps(self, names: Iterable[str]) -> RatioSteps:
        return RatioSteps(self.schedule, tuple(names), gradually=self.gradually, closing=True)

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers and check them before the first batch."""
        # Widths of a model that was cut in this run follow its channel masker, which was warned of.
        layers = slice_layers(pl_module, self.layers, 1 if self._cut else self.block_size)
        layers = {n: layer for n, layer in layers.items() if n not in self._state.freed}
        self._run = SliceMasking(
            TrainerFrontEnd(trainer, pl_module, "SliceMasker"),
            SliceSelection(layers, self.block_size, self.disable_first_index, self.norm),
            self._steps(layers),
            self._state,
            Pipeline.of(trainer).unmasked_weights,
            partial(warn_of_indivisible, "SliceMasker", self.block_size, set()),
        )
        if self.mode == "prune":
            warn_of_widths(trainer, "SliceMasker", self.block_size)
            self._check_schedule(trainer)
        elif self._state.originals is None:
            rank_zero_warn(
                "SliceMasker(mode='unprune') has no effect: nothing is masked; resume (ckpt_path) "
                "a checkpoint of a run that masked slices"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold a resumed run's masks; refuse a schedule that is over before the first one."""
        state, end = self._state, self.schedule.end_epoch
        if state.originals is not None and self._run is not None:
            self._run.live.hold()
            self._run.live.mask_averages()
        elif self.mode == "prune" and trainer.current_epoch > end and state.failed_epoch is None:
            refuse_late_start(trainer, f"at epoch {end + 1}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose slices where that is due at this epoch, or lift all masks; idempotent."""
        before, epoch = self._state, trainer.current_epoch
        if self._run is None:
            return
        if self.mode == "unprune":
            if before.originals is not None and epoch >= self.schedule.start_epoch:
                self.unprune(trainer, pl_module)
            return
        self._state = self._run.advance(before, epoch)
        if self._state.step_epoch == before.step_epoch:
            return
        if before.step_epoch is None:
            rank_zero_info(
                "Slices are held at zero, not cut: they bring no speed on general hardware."
            )
        self._count()
        rank_zero_info(
            f"Epoch {epoch + 1}: {self._zero_fraction:.1%} of the weights are in zero slices."
        )
        if self._zero_fraction == 0 and epoch >= self.schedule.end_epoch:
            rank_zero_warn(
                f"SliceMasker has no effect: pruning_ratio={self.schedule.final_ratio} zeroes no "
                f"whole slice of block_size={self.block_size} weights in any layer; raise "
                "pruning_ratio, lower block_size, or select wider layers"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log how far pruning has come, for the epoch that ends."""
        self._count()
        for name, value in (("ratio", self._state.ratio), ("zero_share", self._zero_fraction)):
            pl_module.log(f"slices/{name}", value, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where a run ends before the first mask."""
        state = self._state
        never = state.step_epoch is None and state.failed_epoch is None and not state.freed
        if self.mode == "prune" and never and not trainer.interrupted:
            warn_of_nothing_masked(trainer, "SliceMasker", self.schedule.start_epoch)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Hold what is held of the weights that are left."""
        self._cut = True
        if self._run is not None:
            self._state = self._run.follow_cut(self._state, pruned)
        self._count()

    def state_dict(self) -> dict[str, Any]:
        """Return masks, original values and progress as plain data."""
        own = {"cut": self._cut, "slice_share": dict(self.slice_share)}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore masks and progress."""
        if "version" not in state_dict:
            state_dict = {**state_dict, "originals": state_dict["mask"]}
        # Slices are masked on after a cut of channels.
        super().load_state_dict({**state_dict, "cut": False})
        self._cut = state_dict["cut"]
        self.slice_share = dict(state_dict["slice_share"])

    # --- the way back -----------------------------------------------------------------------

    def unprune(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        names: Iterable[str] | None = None,
    ) -> None:
        """Lift masks: weights, in averaged copies too, are what they were, and train freely.

        The layers are not masked again.

        Args:
            trainer: The running Trainer.
            pl_module: Its module.
            names: Layers to free; None: all.

        Raises:
            KeyError: a layer has no mask.
        """
        if self._run is None or self._state.originals is None:
            rank_zero_warn("SliceMasker.unprune has no effect: no slice is masked")
            return
        number = len(self._run.live.masks)
        self._state = self._run.free(self._state, names)
        Pipeline.of(trainer).apply_masks()  # slices may be in channels that another stage masks
        if names is None:
            epoch = trainer.current_epoch + 1
            rank_zero_info(f"Epoch {epoch}: slices of {number} layers lifted.")
        self._count()

    def _count(self) -> None:
        """Count what slices hold at zero."""
        if self._run is not None:
            self.slice_share, self._zero_fraction = self._run.zero_fractions()

    def _check_schedule(self, trainer: pl.Trainer) -> None:
        last = last_epoch(trainer, self.schedule.start_epoch, "no slice will be masked")
        if last is not None and self.gradually and self.schedule.epochs[-1] >= last:
            rank_zero_warn(
                f"the last step falls on epoch {self.schedule.epochs[-1] + 1}, but "
                f"max_epochs={last}: a ratio of {self.ratio(last - 1):.2f} will be reached, not "
                f"{self.schedule.final_ratio:.2f}; lower end_epoch or train longer"
            )
