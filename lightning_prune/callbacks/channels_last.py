"""Weights whose channels lie last in memory, as the kernels of processors want them."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.surgery.memory_format import (
    lay_out_channels_last,
    lay_out_plainly,
    lay_out_states,
    plainly_laid_out,
)
from lightning_prune.validation import validated

_MODEL_STATES = ("state_dict", "current_model_state")


class ChannelsLast(Callback):
    """Train with the weights of 2-D convolutions in PyTorch's channels-last memory format.

    Values and shapes stay what they are: only the order in memory differs, and with it the rounding
    of sums. A convolution lays out what it gives as its weights are, so that batches need no
    conversion. Masks, cuts, averaged copies, optimizer states and a resume keep the format; files
    hold contiguous tensors whatever it is, so a run may be resumed with or without.

    A forward pass that calls ``view`` across channels and places (``x.view(len(x), -1)`` behind a
    convolution) fails with such tensors: ``flatten`` and ``reshape`` do not.

    Args:
        enabled: False: nothing is done. None: where the module trains on a processor and says that
            this pays, by an attribute ``fast_on_cpu`` that is true, as that of ``DetectionModule``.

    Example:
        >>> Trainer(callbacks=[..., ChannelsLast()])  # doctest: +SKIP
    """

    @validated
    def __init__(self, enabled: bool | None = True) -> None:
        self.enabled = enabled

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Convert the module, before DDP and averages see its parameters."""
        if self._applies(trainer, pl_module):
            lay_out_channels_last([pl_module])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Convert what a checkpoint brought and what callbacks copied before."""
        if self._applies(trainer, pl_module):
            lay_out_channels_last([pl_module, *averaged_copies(trainer)])
            lay_out_states(trainer.optimizers)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make tensors contiguous: a file says nothing of the format."""
        for name in _MODEL_STATES:
            if name in checkpoint:
                lay_out_plainly(checkpoint[name])
        if "optimizer_states" in checkpoint:
            # A state dict of an optimizer shares the dicts of its parameters with it.
            checkpoint["optimizer_states"] = plainly_laid_out(checkpoint["optimizer_states"])

    def _applies(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        if self.enabled is not None:
            return self.enabled
        on_cpu = trainer.strategy.root_device.type == "cpu"
        return on_cpu and bool(getattr(pl_module, "fast_on_cpu", False))
