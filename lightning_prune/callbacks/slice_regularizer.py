"""The regularize stage of slice pruning: slices are pushed towards zero while the model trains."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.arguments import Count, Epoch, Strength
from lightning_prune.callbacks._slices import warn_of_indivisible, warn_of_widths
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.regularizing_stage import RegularizingStage
from lightning_prune.policies.layers.slice_layers import SliceLayers, slice_layers
from lightning_prune.policies.penalties.slice_regularization import SliceRegularization
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.validation import validated


class SliceRegularizer(RegularizingStage[SliceRegularization]):
    r"""Add a penalty on slices to the gradients, once per optimizer step.

    .. math:: g \mathrel{+}= \text{reg} \frac{s}{\|s\|^2}

    for every slice s that is not zero, after unscaling and reduction over processes and before
    clipping. A slice is the ``block_size`` weights of the filters b, b + B, b + 2B, ... at one
    input channel and one place of the kernel (B filters apart: C_out / block_size). Below a norm
    of 1e-4 the denominator stays at 1e-8. Channels that a masker holds at zero do not count.

    Every epoch ``slices/penalty`` (reg times the number of slices that are not zero),
    ``slices/log_sum`` (sum of the logarithms of their norms: reg times it is what the gradient
    descends) and ``slices/nonzero`` (their fraction of all slices) are logged.

    Args:
        reg: Strength, >= 0. The pull on a slice grows as its norm falls: start small.
        block_size: Weights per slice; divides the number of filters of each layer.
        layers: Names or patterns of the layers; with a leading ``!`` those that are left out;
            None: every convolution whose weight is trained.
        start_epoch: First epoch (0-based) with the penalty.
        end_epoch: First epoch without it; None: to the end of training.
        disable_first_index: Leave out the first element of each kernel row (x = 0; all of a
            kernel that is one wide).

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, a layer whose
            filters ``block_size`` does not divide, an unsupported strategy.

    Source: the slice regularization of SIRC's fork of Torch-Pruning.
    """

    @validated
    def __init__(
        self,
        reg: Strength = 1e-5,
        block_size: Count = 8,
        layers: SliceLayers = None,
        start_epoch: Epoch = 0,
        end_epoch: int | None = None,
        disable_first_index: bool = False,
    ) -> None:
        super().__init__(start_epoch, end_epoch)
        self.reg = reg
        self.block_size = block_size
        self.layers = layers
        self.disable_first_index = disable_first_index
        self._warned: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers before the first batch."""
        self._warned = set()
        # Widths of a model that was cut in this run follow its channel masker, which was warned of.
        block_size = 1 if self._cut else self.block_size
        layers = slice_layers(pl_module, self.layers, block_size)
        self._regularization = SliceRegularization(
            layers, self.block_size, self.reg, self.disable_first_index
        )
        self._knows_masks = False
        warn_of_widths(trainer, "SliceRegularizer", self.block_size)
        last = trainer.max_epochs
        late = last is not None and 0 <= last <= self.start_epoch
        trained = any(layer.weight.requires_grad for layer in layers.values())
        if self.reg == 0 or late or not trained:
            rank_zero_warn(
                f"SliceRegularizer has no effect: reg={self.reg}, start_epoch={self.start_epoch}, "
                f"max_epochs={last}, {len(layers)} layers, "
                f"{'of which some are' if trained else 'none of them'} trained"
            )

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Continue with the slices of the filters that are left."""
        self._cut, self._knows_masks = True, False

    def _follow_masks(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        regularization: SliceRegularization,
    ) -> None:
        regularization.set_unmasked(Pipeline.of(trainer).unmasked_weights())
        odd = regularization.indivisible
        warn_of_indivisible("SliceRegularizer", self.block_size, self._warned, odd)

    def _log(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        regularization: SliceRegularization,
    ) -> None:
        with torch.no_grad():
            penalty = regularization.penalty()
        values = {
            "penalty": penalty.value,
            "log_sum": penalty.log_sum,
            "nonzero": penalty.nonzero / max(1, penalty.slices),
        }
        for name, value in values.items():
            pl_module.log(f"slices/{name}", value, on_step=False, on_epoch=True, batch_size=1)
