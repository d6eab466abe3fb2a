"""Passes without values: what norms and activations give is known from its shape."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


class ShapesOnly(TorchDispatchMode):
    """Spare norms and pointwise operations on meta tensors, which PyTorch takes apart in Python.

    To learn from its decompositions that a batch norm keeps the shape of its input costs more than
    the convolution before it. Whatever does not fit (a width, a precision, an order in memory) is
    left to PyTorch, and so are its errors.

    >>> x = torch.empty(2, 3, 4, device="meta")
    >>> with ShapesOnly():
    ...     torch.nn.functional.silu(x).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        known = None
        rule = _RULES.get(func)
        if rule is not None and _is_plain(args[0]):
            known = rule(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if known is None else known


def _is_plain(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_meta and x.is_floating_point() and x.is_contiguous()


def _alone(x: Tensor, *_others: Any, **_named: Any) -> Tensor:
    return torch.empty_like(x)


def _pair(x: Tensor, other: Any, **_named: Any) -> Tensor | None:
    fits = _is_plain(other) and other.shape == x.shape and other.dtype == x.dtype
    return torch.empty_like(x) if fits else None


def _batch_norm(x: Tensor, *vectors: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    *tensors, training, _momentum, _eps = vectors
    if training or x.ndim < 2 or not _all_of(tensors, x, x.shape[1:2]):
        return None
    return torch.empty_like(x), x.new_empty(0), x.new_empty(0)


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, _eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    inner = torch.Size(shape)
    if x.shape[x.ndim - len(inner) :] != inner or not _all_of((weight, bias), x, inner):
        return None
    moments = (*x.shape[: x.ndim - len(inner)], *(1 for _ in inner))
    return torch.empty_like(x), x.new_empty(moments), x.new_empty(moments)


def _all_of(tensors: Any, x: Tensor, shape: torch.Size) -> bool:
    return all(t is None or (t.shape == shape and t.dtype == x.dtype) for t in tensors)


_RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(
        (_aten.silu.default, _aten.relu.default, _aten.gelu.default, _aten.sigmoid.default), _alone
    ),
    **dict.fromkeys((_aten.add.Tensor, _aten.mul.Tensor, _aten.sub.Tensor), _pair),
    _aten.native_batch_norm.default: _batch_norm,
    _aten.native_layer_norm.default: _layer_norm,
}
