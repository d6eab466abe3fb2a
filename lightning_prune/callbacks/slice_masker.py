"""The mask stage of slice pruning: more and more slices of each layer are held at zero."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.callbacks._arguments import check_counts, check_fraction
from lightning_prune.callbacks._schedule import (
    last_epoch,
    refuse_late_start,
    warn_of_nothing_masked,
)
from lightning_prune.callbacks._slices import living, warn_of_indivisible, warn_of_widths
from lightning_prune.callbacks.holding_stage import HoldingStage
from lightning_prune.callbacks.masking_stage import MaskingStage
from lightning_prune.callbacks.trainer.averages import averaged_copies, mask_averages
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.policies.layers.slice_layers import check_slice_layers, slice_layers
from lightning_prune.policies.selection.slice_selection import SliceSelection
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.slice_mask import SliceMask

Mode = Literal["prune", "unprune"]


class SliceMasker(HoldingStage[SliceMask]):
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

    def __init__(
        self,
        block_size: int = 8,
        start_epoch: int = 0,
        end_epoch: int = 10,
        epoch_rate: int = 1,
        pruning_ratio: float = 0.5,
        gradually: bool = True,
        mode: Mode = "prune",
        disable_first_index: bool = False,
        layers: list[str] | None = None,
        norm: Literal[1, 2] = 2,
    ) -> None:
        check_counts(block_size=(block_size, 1))
        check_slice_layers(layers)
        check_fraction(
            "the fraction of each layer's slices to zero, for example 0.5",
            up_to_one=True,
            pruning_ratio=pruning_ratio,
        )
        if mode not in get_args(Mode):
            raise ValueError(f"mode={mode!r}: allowed are 'prune' and 'unprune'")
        if norm not in (1, 2):
            raise ValueError(f"norm={norm}: allowed are 1 (sum of magnitudes) and 2 (Euclidean)")
        super().__init__()
        self.schedule = RatioSchedule(start_epoch, end_epoch, epoch_rate, pruning_ratio)
        self.block_size = block_size
        self.gradually = gradually
        self.mode: Mode = mode
        self.disable_first_index = disable_first_index
        self.layers = layers
        self.norm = norm
        self.slice_share: dict[str, float] = {}
        self._ratio, self._zero_share = 0.0, 0.0
        self._step_epoch: int | None = None
        self._freed: list[str] = []
        self._saved: dict[str, Any] | None = None
        self._selection: SliceSelection | None = None
        self._told: set[str] = set()

    def acts(self, epoch: int) -> bool:
        """Tell whether slices are chosen at the start of an epoch."""
        return self.schedule.is_scheduled(epoch) or epoch == self.schedule.end_epoch

    def ratio(self, epoch: int) -> float:
        """Return the fraction of slices that is zeroed at the start of an epoch."""
        if self.gradually or epoch < self.schedule.start_epoch:
            return self.schedule.ratio(epoch)
        return self.schedule.final_ratio

    def _let_go(self) -> None:
        if self._mask is not None:
            self._saved = self._mask.state_dict()
        super()._let_go()

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers and check them before the first batch."""
        self._told = set()
        # Widths of a model that was cut in this run follow its channel masker, which was warned of.
        layers = slice_layers(pl_module, self.layers, 1 if self._cut else self.block_size)
        layers = {name: layer for name, layer in layers.items() if name not in self._freed}
        self._selection = SliceSelection(
            layers, self.block_size, self.disable_first_index, self.norm
        )
        if self.mode == "prune":
            warn_of_widths(trainer, "SliceMasker", self.block_size)
            self._check_schedule(trainer)
        elif self._saved is None:
            rank_zero_warn(
                "SliceMasker(mode='unprune') has no effect: nothing is masked; resume (ckpt_path) "
                "a checkpoint of a run that masked slices"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up a resumed run's masks."""
        if self._saved is not None:
            self._mask = SliceMask.from_state_dict(pl_module, self._saved)
            self._saved = None
            self._hold(trainer)
        elif (
            self.mode == "prune"
            and trainer.current_epoch > self.schedule.end_epoch
            and self._skipped is None
        ):
            refuse_late_start(trainer, f"at epoch {self.schedule.end_epoch + 1}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose slices where that is due at this epoch, or lift all masks; idempotent."""
        epoch = trainer.current_epoch
        if self.mode == "unprune":
            if self._mask is not None and epoch >= self.schedule.start_epoch:
                self.unprune(trainer, pl_module)
        elif self._is_due(epoch):
            self._step(trainer, pl_module, epoch)

    def _is_due(self, epoch: int) -> bool:
        if epoch in (self._step_epoch, self._skipped):
            return False
        # Where the last step could not be decided, every further epoch tries again.
        late = self._skipped is not None and epoch > self.schedule.end_epoch
        return self.acts(epoch) or (late and (self._step_epoch or 0) < self.schedule.end_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log how far pruning has come, for the epoch that ends."""
        self._take_stock(trainer, pl_module)
        for name, value in (("ratio", self._ratio), ("zero_share", self._zero_share)):
            pl_module.log(f"slices/{name}", value, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where a run ends before the first mask."""
        never = self._step_epoch is None and self._skipped is None and not self._freed
        if self.mode == "prune" and never and not trainer.interrupted:
            warn_of_nothing_masked(trainer, "SliceMasker", self.schedule.start_epoch)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Hold what is held of the weights that are left."""
        self._cut = True
        if self._mask is not None:
            self._mask = self._mask.after_cut(pl_module, pruned)
            self._hold(trainer)
        self._take_stock(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return masks, original values and progress as plain data."""
        return {
            "mask": self._saved if self._mask is None else self._mask.state_dict(),
            "ratio": self._ratio,
            "step_epoch": self._step_epoch,
            "cut": self._cut,
            "freed": list(self._freed),
            "slice_share": dict(self.slice_share),
            "skipped": self._skipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up masks and progress."""
        self._saved = state_dict["mask"]
        self._ratio = state_dict["ratio"]
        self._step_epoch = state_dict["step_epoch"]
        self._cut = state_dict["cut"]
        self._freed = list(state_dict["freed"])
        self.slice_share = dict(state_dict["slice_share"])
        # Checkpoints of earlier versions have none.
        self._skipped = state_dict.get("skipped")

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
        if self._mask is None or self._selection is None:
            rank_zero_warn("SliceMasker.unprune has no effect: no slice is masked")
            return
        masks = self._mask.masks
        lifted = set(masks if names is None else names)
        if lifted - masks.keys():
            raise KeyError(f"no slice mask on {sorted(lifted - masks.keys())}")
        kept = {name: mask.new_ones(mask.shape) for name, mask in masks.items() if name in lifted}
        self._replace(trainer, pl_module, masks | kept)
        for other in callbacks_of(trainer):
            if isinstance(other, MaskingStage) and other._mask is not None:
                other._mask.apply()  # slices may lie in channels that another stage masks
                if other.groups is not None:
                    mask_averages(trainer, other.groups, other.plan)
        self._freed += sorted(lifted)
        for name in lifted:
            self._selection.layers.pop(name, None)
        if names is None:
            self._mask.release()
            self._mask, self._saved, self._ratio = None, None, 0.0
            rank_zero_info(
                f"Epoch {trainer.current_epoch + 1}: slices of {len(lifted)} layers lifted."
            )
        self._take_stock(trainer, pl_module)

    # --- inside -----------------------------------------------------------------------------

    def _step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        assert self._selection is not None
        if self._step_epoch is None:
            rank_zero_info(
                "Slices are held at zero, not cut: they bring no speed on general hardware."
            )
        ratio = self.ratio(epoch)
        held = {} if self._mask is None else self._mask.masks
        left = living(trainer, pl_module)
        step = self._decided(trainer, partial(self._selection.select, ratio, held, left))
        if step is None:
            return
        self._ratio, self._step_epoch = ratio, epoch
        warn_of_indivisible("SliceMasker", step.indivisible, self.block_size, self._told)
        self._replace(trainer, pl_module, {**held, **step.masks})
        self._take_stock(trainer, pl_module)
        rank_zero_info(
            f"Epoch {epoch + 1}: {self._zero_share:.1%} of the weights are in zero slices."
        )
        if self._zero_share == 0 and epoch >= self.schedule.end_epoch:
            rank_zero_warn(
                f"SliceMasker has no effect: pruning_ratio={self.schedule.final_ratio} zeroes no "
                f"whole slice of block_size={self.block_size} weights in any layer; raise "
                "pruning_ratio, lower block_size, or select wider layers"
            )

    def _replace(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, masks: dict[str, Any]
    ) -> None:
        """Hold other masks: what they do not hold any more comes back."""
        after = SliceMask(pl_module, masks)
        after.remember(self._mask)
        if self._mask is not None:
            state = self._mask.state_dict()
            for copy in averaged_copies(trainer):
                SliceMask.from_state_dict(copy, state).restore(after.masks)
            self._mask.restore(after.masks)
        self._mask = after
        self._hold(trainer)

    def _hold(self, trainer: pl.Trainer) -> None:
        assert self._mask is not None
        self._mask.hold(trainer.optimizers)
        for copy in averaged_copies(trainer):
            SliceMask(copy, self._mask.masks).apply()

    def _take_stock(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count what slices hold at zero."""
        if self._selection is None:
            return
        masks = {} if self._mask is None else self._mask.masks
        left = living(trainer, pl_module)
        self.slice_share = self._selection.shares(masks, left)
        sizes = {
            name: layer.weight.numel() if name not in left else int(left[name].sum())
            for name, layer in self._selection.layers.items()
        }
        zeros = sum(share * sizes[name] for name, share in self.slice_share.items())
        self._zero_share = zeros / max(1, sum(sizes.values()))

    def _check_schedule(self, trainer: pl.Trainer) -> None:
        last = last_epoch(trainer, self.schedule.start_epoch, "no slice will be masked")
        if last is not None and self.gradually and self.schedule.epochs[-1] >= last:
            rank_zero_warn(
                f"the last step falls on epoch {self.schedule.epochs[-1] + 1}, but "
                f"max_epochs={last}: a ratio of {self.ratio(last - 1):.2f} will be reached, not "
                f"{self.schedule.final_ratio:.2f}; lower end_epoch or train longer"
            )
