"""Sums over the rows and columns of many tensors at once, and gradients that scale them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Dims = Sequence[int]
"""Which of a tensor's first two dimensions count: rows (0,), columns (1,) or both (0, 1)."""


class RowColumnSums:
    r"""The rows and columns of many tensors, ready to be read and scaled again and again.

    A row of a tensor is its slice at one position of dimension 0, a column one of dimension 1.
    Vectors over rows and columns run tensor by tensor, dimension by dimension, place by place.

    float32 tensors on the CPU are read by a compiled kernel, once for both dimensions, in whatever
    order their memory has; other tensors by torch.

    Args:
        weights: T tensors w, on one device; they are read where they are, not copied.
        dims: Dimensions of each tensor whose rows or columns count.

    Raises:
        ValueError: dimensions other than 0 and 1, or not as many as tensors.

    >>> sums = RowColumnSums([torch.tensor([[1.0, 2.0], [3.0, 4.0]])], [(0, 1)])
    >>> sums.squares().tolist()
    [5.0, 25.0, 10.0, 20.0]
    >>> grad = torch.zeros(2, 2)
    >>> sums.add_to([grad], torch.tensor([1.0, 2.0, 10.0, 20.0]))
    >>> grad.tolist()
    [[11.0, 42.0], [36.0, 88.0]]
    """

    def __init__(self, weights: Sequence[Tensor], dims: Sequence[Dims]) -> None:
        if len(weights) != len(dims) or any(tuple(d) not in ((0,), (1,), (0, 1)) for d in dims):
            raise ValueError(f"dims={list(dims)}: pass (0,), (1,) or (0, 1) for each tensor")
        self.weights = [weight.detach() for weight in weights]
        self.dims = [tuple(wanted) for wanted in dims]
        self.addresses = [weight.data_ptr() for weight in weights]
        self._strides = [weight.stride() for weight in weights]
        self._table = _table(self.weights, self.dims)
        wide = any(weight.dtype == torch.float64 for weight in weights)
        self._kind = torch.float64 if wide else torch.float32

    def __len__(self) -> int:
        return sum(
            weight.shape[dim]
            for weight, wanted in zip(self.weights, self.dims, strict=True)
            for dim in wanted
        )

    def squares(self) -> Tensor:
        r"""Sum the squares of every row and column.

        .. math:: q_i = \sum_{w \in \text{row or column } i} w^2

        Returns:
            (P,) float32 sums, float64 if a tensor is.
        """
        if not self.weights:
            return torch.zeros(0)
        if self._table is not None:
            from lightning_prune.functional.kernels.row_column_sums import (
                sum_all_squares,  # numba imports slowly
            )

            sums = torch.empty(len(self))
            sum_all_squares(np.array(self.addresses), self._table, sums.numpy())
            return sums
        norms = [
            _norms(weight, dim, self._kind)
            for weight, wanted in zip(self.weights, self.dims, strict=True)
            for dim in wanted
        ]
        return torch.cat(norms).square_()

    def add_to(self, grads: Sequence[Tensor | None], scale: Tensor, sign: bool = False) -> None:
        r"""Add to every gradient its weight, times the sum of the scales of its row and its column.

        .. math:: g_{ij} \mathrel{+}= w_{ij} (r_i + c_j)

        Args:
            grads: T gradients g, changed in place; None: this one is left out.
            scale: (P,) scales of all rows and columns, r of dimension 0 and c of dimension 1.
            sign: Add the sign of the weight instead, times its scales.
        """
        rest: Sequence[Tensor | None] = grads
        if self._table is not None and not sign and scale.dtype == torch.float32:
            from lightning_prune.functional.kernels.row_column_sums import add_all_scaled

            fit = [
                grad is not None
                and grad.dtype == torch.float32
                and grad.stride() == strides
                and grad.device.type == "cpu"
                for grad, strides in zip(grads, self._strides, strict=True)
            ]
            found = [
                grad.data_ptr() if good and grad is not None else 0
                for grad, good in zip(grads, fit, strict=True)
            ]
            add_all_scaled(np.array(found), np.array(self.addresses), self._table, scale.numpy())
            if all(good or grad is None for grad, good in zip(grads, fit, strict=True)):
                return
            rest = [None if good else grad for grad, good in zip(grads, fit, strict=True)]
        self._add_by_torch(rest, scale, sign)

    def _add_by_torch(self, grads: Sequence[Tensor | None], scale: Tensor, sign: bool) -> None:
        place = 0
        for grad, weight, wanted in zip(grads, self.weights, self.dims, strict=True):
            factor: Tensor | None = None
            for dim in wanted:
                part = scale[place : place + weight.shape[dim]]
                place += weight.shape[dim]
                if grad is not None:
                    part = part.view([-1 if d == dim else 1 for d in range(weight.ndim)])
                    factor = part if factor is None else factor + part
            if grad is not None and factor is not None:
                value = weight.sgn() if sign else weight
                grad.detach().addcmul_(value.to(grad.dtype), factor.to(grad.dtype))


def _norms(weight: Tensor, dim: int, kind: torch.dtype) -> Tensor:
    weight = weight.abs() if weight.is_complex() else weight
    if weight.ndim == 1:
        return weight.to(kind)
    others = [d for d in range(weight.ndim) if d != dim]
    norms: Tensor = torch.linalg.vector_norm(weight, 2, others, dtype=kind)
    return norms


def _table(weights: Sequence[Tensor], dims: Sequence[Dims]) -> NDArray[np.int64] | None:
    """Return what the kernel must know of each tensor, or None where it cannot read one."""
    rows = []
    for weight, wanted in zip(weights, dims, strict=True):
        inner = _inner_stride(weight)
        if inner is None:
            return None
        height = len(weight)
        counts = [weight.shape[dim] if dim in wanted else 0 for dim in (0, 1)]
        rows.append([height, weight.numel() // height, inner, *counts])
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def _inner_stride(weight: Tensor) -> int | None:
    """Return the stride of the second dimension, if rows lie one after the other in memory."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not weight.numel():
        return None
    if weight.ndim == 1:
        return 1 if weight.is_contiguous() else None
    strides = weight.stride()
    # Channels-last memory is contiguous too, in another order.
    order = sorted(range(1, weight.ndim), key=lambda dim: strides[dim], reverse=True)
    if weight.is_contiguous():
        return weight[0, 0].numel()
    return strides[1] if weight.permute(0, *order).is_contiguous() else None
