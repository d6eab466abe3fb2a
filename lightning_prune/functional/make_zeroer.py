"""Zeroes rows and columns of a tensor again and again, at the speed of reading it."""

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def make_zeroer(values: Tensor, removed: Mapping[int, Tensor]) -> Callable[[], None]:
    """Return a function that zeroes fixed positions of some dimensions of a tensor.

    On the CPU one compiled pass reads the tensor and writes only rows that hold something else
    than zero; elsewhere, and beyond the first two dimensions, one masked fill does it.

    Args:
        values: Tensor that is filled in place, 1-D or more.
        removed: Dimension -> positions in it that are zeroed, int64.

    Returns:
        The function; it serves as long as the tensor keeps its memory (``data_ptr``).

    >>> weight = torch.ones(2, 3)
    >>> make_zeroer(weight, {0: torch.tensor([1]), 1: torch.tensor([0, 2])})()
    >>> weight.tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    rows = _rows_of_bits(values.detach())
    if rows is None or any(dim > 1 for dim in removed):
        return _masked_fill(values.detach(), removed)
    bits, inner = rows
    from lightning_prune.functional.kernels.zeroing import (
        zero_rows,  # numba takes a moment to import
    )

    positions = {dim: index.cpu() for dim, index in removed.items()}
    if values.ndim == 1:
        positions = {1: positions[0]}  # _rows_of_bits made it a single row
    row_removed = torch.zeros(len(bits), dtype=torch.bool)
    row_removed[positions.get(0, torch.empty(0, dtype=torch.int64))] = True
    keep = torch.empty(0, dtype=bits.dtype)
    if 1 in positions:
        logical = torch.full(values.shape[1:] or values.shape, -1, dtype=bits.dtype)
        keep = logical.index_fill(0, positions[1], 0).permute(inner).flatten().contiguous()
    arguments = bits.numpy(), row_removed.numpy(), keep.numpy()
    return lambda: zero_rows(*arguments)


def _rows_of_bits(values: Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
    """Return a tensor's memory as rows of integers, and the order of the inner dimensions in it.

    None where it lies elsewhere, or its rows do not lie one after the other.
    """
    if values.device.type != "cpu" or values.element_size() not in _BITS or values.numel() == 0:
        return None
    if values.ndim < 2:
        values = values.reshape(1, -1) if values.is_contiguous() else values[:0]
    # Weights in channels-last memory are contiguous too, in another order.
    strides = values.stride()
    inner = sorted(range(1, values.ndim), key=lambda dim: strides[dim], reverse=True)
    physical = values.permute(0, *inner)
    if len(physical) == 0 or not physical.is_contiguous():
        return None
    rows = physical.view(len(physical), -1).view(_BITS[values.element_size()])
    return rows, tuple(dim - 1 for dim in inner)


def _masked_fill(values: Tensor, removed: Mapping[int, Tensor]) -> Callable[[], None]:
    masks = []
    for dim, index in removed.items():
        mask = torch.zeros(values.shape[dim], dtype=torch.bool, device=values.device)
        mask[index.to(values.device)] = True
        masks.append(mask.view(*(-1 if d == dim else 1 for d in range(values.ndim))))
    region = reduce(torch.logical_or, masks)

    def fill() -> None:
        values.masked_fill_(region, 0)

    return fill
