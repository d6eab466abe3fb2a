"""Values over all ranks of a run."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor


def broadcast(trainer: pl.Trainer, value: Any) -> Any:
    """Return rank 0's value on every rank."""
    return trainer.strategy.broadcast(value) if trainer.world_size > 1 else value


def gather(trainer: pl.Trainer, value: Any) -> list[Any]:
    """Return the values of all ranks, in the order of the ranks."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def total(trainer: pl.Trainer, value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, on every rank."""
    if trainer.world_size == 1:
        return value
    summed: Tensor = trainer.strategy.reduce(value, reduce_op="sum")
    return summed
