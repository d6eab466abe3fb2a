"""Makes tensors of a pickle from claims that are compared with the bytes that are there."""

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from lightning_prune.files.plain_values import is_sequence, is_size

_LARGEST_EMPTY = 2**48  # numbers that a tensor would have without its sizes of 0
_BITS = {"conj", "neg"}


class Storage(NamedTuple):
    """The numbers that tensors are views of."""

    data: Tensor
    spare: int = 0  # bytes that a tensor may have through strides of zero


def rebuild(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any = False, hooks: Any = None,
    bits: Any = None,
) -> Tensor:  # fmt: skip
    """Make a tensor out of a storage, refusing sizes that the storage does not hold."""
    if type(storage) is not Storage:
        raise ValueError("a tensor without a storage of its own")
    _check_extras(grad, hooks, bits, storage.data.dtype)
    if not is_sequence(size) or not is_sequence(stride):
        raise ValueError("a tensor whose size is no short tuple")
    if len(size) != len(stride):
        raise ValueError("a tensor without a storage of its own")
    if not all(map(is_size, (offset, *size, *stride))):
        raise ValueError("a tensor with a size, stride or offset that is no number from 0 to 2^63")
    available, item = storage.data.numel(), storage.data.dtype.itemsize
    count, full, last = 1, 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        full *= max(length, 1)
        last += (length - 1) * step if length else 0
    if count > max(available, storage.spare // item) or (count and last >= available):
        shape = tuple(size) if full < 2**64 else f"of {len(size)} dimensions"
        raise ValueError(f"a tensor of size {shape}, larger than the {available} numbers stored")
    if offset > available or max(full, *stride, 0) > max(_LARGEST_EMPTY, storage.spare):
        raise ValueError("a tensor with absurd strides")
    return storage.data.as_strided(tuple(size), tuple(stride), offset)


def rebuild_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any,
    bits: Any = None,
) -> Tensor:  # fmt: skip
    """Make a tensor of a type that has no storage of its own."""
    if type(dtype) is not torch.dtype or type(storage) is not Storage:
        raise ValueError("a tensor without a known type")
    typed = Storage(storage.data.view(dtype), storage.spare)
    return rebuild(typed, offset, size, stride, grad, hooks, bits)


def rebuild_parameter(data: Any, grad: Any = True, hooks: Any = None, state: Any = None) -> Tensor:
    """Make a parameter."""
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    _check_extras(grad, hooks, None, data.dtype)
    check_state(state)
    return nn.Parameter(data, grad)


def check_state(state: Any) -> None:
    """Refuse attributes of a tensor that replace what a tensor is."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    for part in parts:
        if part is None:
            continue
        if not isinstance(part, dict):
            raise ValueError("a tensor with a state that is no dict")
        for name in part:
            if type(name) is not str or name.startswith("__") or hasattr(nn.Parameter, name):
                raise ValueError("a tensor with attributes that replace what it is")


def rebuild_sparse(layout: Any, data: Any) -> Tensor:
    """Build a sparse tensor, whose indices torch checks after reading."""
    if type(data) is not tuple or not 3 <= len(data) <= 4:
        raise ValueError("a sparse tensor without indices, values and size")
    coordinates = layout is torch.sparse_coo
    size = data[2] if coordinates else data[-1]
    parts = data[:2] if coordinates else data[:3]
    if not isinstance(layout, torch.layout) or not all(isinstance(p, Tensor) for p in parts):
        raise ValueError("a sparse tensor without indices and values")
    if not is_sequence(size) or not all(map(is_size, size)):
        raise ValueError("a sparse tensor whose size is no short tuple of numbers")
    if coordinates and (data[0].dtype != torch.int64 or data[0].ndim != 2):
        raise ValueError("a sparse tensor whose indices are no table of numbers")
    if len(data) == 4 and coordinates and type(data[3]) is not bool and data[3] is not None:
        raise ValueError("a sparse tensor that is neither coalesced nor not")
    full = 1
    for length in size:
        full *= max(length, 1)
    if full > _LARGEST_EMPTY:
        raise ValueError("a sparse tensor of an absurd size")
    return torch.empty(size, dtype=parts[-1].dtype, device="meta")


def rebuild_meta(dtype: Any, size: Any, stride: Any, grad: Any) -> Tensor:
    """Make a tensor that was on the meta device when it was saved."""
    if type(dtype) is not torch.dtype:
        raise ValueError("a tensor without a known type")
    _check_extras(grad, None, None, dtype)
    if not (is_sequence(size) and is_sequence(stride) and len(size) == len(stride)):
        raise ValueError("a tensor whose size is no short tuple")
    last, full = 1, 1
    for length, step in zip(size, stride, strict=True):
        if not is_size(length) or not is_size(step):
            raise ValueError("a tensor with a size or stride that is no number from 0 to 2^63")
        last += max(length - 1, 0) * step
        full *= max(length, 1)
    if max(last, full) >= _LARGEST_EMPTY:
        raise ValueError("a tensor with absurd strides")
    return torch.empty_strided(tuple(size), tuple(stride), dtype=dtype, device="meta")


def make_tensor(*_: Any) -> NoReturn:
    """Refuse ``torch.FloatTensor(10**12)``, which would allocate as much."""
    raise ValueError("a tensor that is made by a call, not stored")


def _check_extras(grad: Any, hooks: Any, bits: Any, dtype: torch.dtype) -> None:
    if type(grad) is not bool or (
        hooks is not None and not (isinstance(hooks, dict) and not hooks)
    ):
        raise ValueError("a tensor with hooks, or that neither needs a gradient nor not")
    if bits is None:
        return
    known = isinstance(bits, dict) and bits.keys() <= _BITS
    if not known or not all(type(v) is bool for v in bits.values()):
        raise ValueError("a tensor with unknown marks")
    if any(bits.values()) and not (dtype.is_complex or dtype.is_floating_point):
        raise ValueError("a tensor of whole numbers with the marks of others")
    if bits.get("conj") and not dtype.is_complex:
        raise ValueError("a tensor of real numbers with the marks of complex ones")
