"""Averaged copies of the model, and norm statistics averaged over ranks."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.surgery.memory_format import lay_out_plainly
from lightning_prune.surgery.recalibrate import norm_statistics


def averaged_copies(trainer: pl.Trainer) -> list[nn.Module]:
    """Return the copies of the model that averaging callbacks keep."""
    copies: list[nn.Module] = []
    for callback in callbacks_of(trainer):
        copy = getattr(callback, "_average_model", None)
        if isinstance(callback, WeightAveraging) and copy is not None:
            copies.append(copy.module)
        elif isinstance(callback, StochasticWeightAveraging) and copy is not None:
            copies.append(copy)
    return copies


def forget_updates(callback: WeightAveraging) -> None:
    """Count updates from the start: else none comes before the last fit's number of steps."""
    callback._latest_update_step, callback._latest_update_epoch = 0, -1


def restart_averages(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Restart averages with the weights and the norm statistics of the model."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            callback._average_model.module.load_state_dict(pl_module.state_dict())
            callback._average_model.n_averaged.zero_()
        elif isinstance(callback, StochasticWeightAveraging):
            if callback._average_model is not None:
                callback._average_model.load_state_dict(pl_module.state_dict())
            if callback.n_averaged is not None:
                callback.n_averaged.zero_()


def save_validated_weights(trainer: pl.Trainer, path: str) -> None:
    """Save a weights-only checkpoint of the model that validation sees: the average, if any.

    ``trainer.save_checkpoint(path, weights_only=True)`` leaves averages out, and a full checkpoint
    from the start of an epoch does not resume where it was written.
    """
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
    for callback in callbacks_of(trainer):
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            checkpoint["state_dict"] = callback._average_model.module.state_dict()
    lay_out_plainly(checkpoint["state_dict"])
    trainer.strategy.save_checkpoint(checkpoint, path)
    trainer.strategy.barrier("save_validated_weights")


@torch.no_grad()
def average_norms(trainer: pl.Trainer, model: nn.Module) -> None:
    """Average the norm statistics over all ranks: DDP lets them drift apart."""
    if trainer.world_size == 1:
        return
    statistics = norm_statistics(model)
    if not statistics:
        return
    whole = torch.cat([value.flatten() for value in statistics])
    mean = trainer.strategy.reduce(whole, reduce_op="mean")
    for value, part in zip(statistics, mean.split([len(v) for v in statistics]), strict=True):
        value.copy_(part)
