"""The processes of a plain loop, where each of them reads batches of its own."""

from typing import Any

import torch
from torch import Tensor, distributed


def process_count() -> int:
    """Return the number of processes that train together; 1 without a process group."""
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1


def total(value: Tensor, device: torch.device) -> Tensor:
    """Return the sum of a tensor over all processes, where it was.

    Args:
        value: The part of this process.
        device: One that the process group can send from: NCCL knows GPUs only.
    """
    summed = value.detach().to(device, copy=True)
    distributed.all_reduce(summed)
    return summed.to(value.device)


def from_first(value: Any) -> Any:
    """Return the first process' value in every process."""
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: Any) -> list[Any]:
    """Return the values of all processes, in their order."""
    values: list[Any] = [None] * process_count()
    distributed.all_gather_object(values, value)
    return values
