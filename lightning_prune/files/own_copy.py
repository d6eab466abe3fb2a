"""Copies of the tensors that a file holds."""

from collections.abc import Mapping

import torch
from torch import Tensor


def own_copy(name: str, value: Tensor) -> Tensor:
    """Return a copy of a weight of a file, float32 if it is a floating-point number.

    Call it when shapes are known to fit: several tensors of a hostile file may share one storage,
    and each copy has the whole.

    Args:
        name: Of the tensor, for messages.
        value: The tensor.

    Raises:
        ValueError: it is complex or quantized, or holds NaN or infinity.

    >>> own_copy("w", torch.ones(2, dtype=torch.float16)).dtype
    torch.float32
    """
    if value.is_complex() or value.is_quantized:
        raise ValueError(f"{name} holds {value.dtype}: weights are real numbers")
    if not value.is_floating_point():
        return value.clone()
    value = value.to(torch.float32, copy=True).contiguous()
    if not value.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity: the training that wrote it diverged")
    return value


def own_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of all weights of a file, as ``own_copy`` makes them."""
    return {name: own_copy(name, value) for name, value in tensors.items()}
