"""The regularize stage of slice pruning: slices are drawn to zero while the model trains."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from lightning_prune.callbacks._arguments import check_counts
from lightning_prune.callbacks._slices import living, warn_of_indivisible, warn_of_widths
from lightning_prune.callbacks._trainer_surgery import loss_scale
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.pruners.slice_layers import check_slice_layers, slice_layers
from lightning_prune.pruners.slice_regularization import SliceRegularization, check_slice_reg
from lightning_prune.surgery.cut import PrunedChannels


class SliceRegularizer(PruningStage):
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

    def __init__(
        self,
        reg: float = 1e-5,
        block_size: int = 8,
        layers: list[str] | None = None,
        start_epoch: int = 0,
        end_epoch: int | None = None,
        disable_first_index: bool = False,
    ) -> None:
        check_slice_reg(reg)
        check_counts(
            block_size=(block_size, 1),
            start_epoch=(start_epoch, 0),
            end_epoch=(end_epoch, start_epoch + 1),
        )
        check_slice_layers(layers)
        self.reg = reg
        self.block_size = block_size
        self.layers = layers
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.disable_first_index = disable_first_index
        self._cut = False
        self._regularization: SliceRegularization | None = None
        self._knows_masks = False
        self._told: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers before the first batch."""
        self._told = set()
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

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the channel masks again before the epoch's first step."""
        # Not here: maskers that stand behind in the list decide after this hook.
        self._knows_masks = False

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Add the penalty to the gradients of this optimizer's parameters."""
        if self._regularization is None or not self._acts(trainer.current_epoch):
            return
        self._look_at_masks(trainer, pl_module)
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._regularization.apply(own, loss_scale(trainer, optimizer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log how many slices there are."""
        if self._regularization is None:
            return
        self._look_at_masks(trainer, pl_module)
        with torch.no_grad():
            penalty = self._regularization.penalty()
        values = {
            "penalty": penalty.value,
            "log_sum": penalty.log_sum,
            "nonzero": penalty.nonzero / max(1, penalty.slices),
        }
        for name, value in values.items():
            pl_module.log(f"slices/{name}", value, on_step=False, on_epoch=True, batch_size=1)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Go on with the slices of the filters that are left."""
        self._cut, self._knows_masks = True, False

    def state_dict(self) -> dict[str, Any]:
        """Return whether channels were cut."""
        return {"cut": self._cut}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up whether channels were cut."""
        self._cut = state_dict["cut"]

    def _acts(self, epoch: int) -> bool:
        return epoch >= self.start_epoch and (self.end_epoch is None or epoch < self.end_epoch)

    def _look_at_masks(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._knows_masks or self._regularization is None:
            return
        self._regularization.set_living(living(trainer, pl_module))
        odd = self._regularization.indivisible
        warn_of_indivisible("SliceRegularizer", odd, self.block_size, self._told)
        self._knows_masks = True
