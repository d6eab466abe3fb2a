"""Which channels of an output are used."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]
# Sums of float32 in another order differ by less: what a part decides, the whole would too.
_SAFETY = 1.001
# Values of a channel that are read first where a copy of them is needed.
_PART = 64
_CPU = torch.device("cpu")
_kernel: Callable[..., bool] | None = None


def used_channels(
    output: Tensor,
    threshold: float = 1e-6,
    dim: int = 1,
    activation: Activation | None = None,
) -> Tensor:
    r"""Return which channels of an output are used: larger than a threshold on average.

    .. math:: \text{used}_c = \Big[\frac{1}{N} \sum_{n=1}^{N} |a_{nc}| > t\Big]

    over the N values of channel c in the batch. On the CPU a channel is read only until the sum
    exceeds N t: magnitudes only add to it. On other devices all values are read, and nothing
    waits for the device. NaN counts as used: such a channel is not dormant.

    Args:
        output: (..., C, ...) output of a layer, floating point.
        threshold: The threshold t, at least 0.
        dim: Dimension of the channels.
        activation: Elementwise function that is still to be applied to the output; it may work in
            place, on a copy.

    Returns:
        (C,) bool on the output's device; all False for an empty batch.

    Source: the channel usage of the project's CSP_Reset guide.

    >>> output = torch.tensor([[[1.0, 0.0], [1e-7, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    >>> used_channels(output).tolist()
    [True, False]
    >>> used_channels(output - 1, activation=torch.relu).tolist()
    [False, False]
    """
    counts = output.new_zeros(output.shape[dim], dtype=torch.int64)
    count_used(counts, output, threshold, dim, activation)
    return counts > 0


def count_used(
    counts: Tensor,
    output: Tensor,
    threshold: float = 1e-6,
    dim: int = 1,
    activation: Activation | None = None,
) -> bool:
    """Add 1 to the counts of the used channels; see ``used_channels``.

    Args:
        counts: (C,) int64, on the output's device.
        output: (..., C, ...) output of a layer, floating point.
        threshold: The threshold.
        dim: Dimension of the channels.
        activation: What is still to be applied to the output.

    Returns:
        Whether there was an output; nothing is counted of an empty batch.

    >>> counts = torch.tensor([4, 0])
    >>> count_used(counts, torch.tensor([[1.0, 0.0]]))
    True
    >>> counts.tolist()
    [5, 0]
    """
    shape = output.shape
    dim %= len(shape)
    number = math.prod(shape)
    if number == 0:
        return False
    bound = threshold * (number // shape[dim])
    if output.device != _CPU:
        values = output.detach()
        values = values if activation is None else _applied(activation, values)
        counts += ~(_sums(values, dim) <= bound)
    elif activation is not None or not _count_compiled(counts, output, bound, dim):
        counts += _used_by_parts(output.detach(), bound, dim, activation)
    return True


def _count_compiled(counts: Tensor, values: Tensor, bound: float, dim: int) -> bool:
    """Count where the kernel can read the memory, and decide; return whether it could."""
    global _kernel
    if values.dtype is not torch.float32 or counts.dtype is not torch.int64:
        return False
    shape = values.shape
    channels = shape[dim]
    if values.is_contiguous():
        samples, places = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    elif dim == 1 and len(shape) == 4 and values.is_contiguous(memory_format=torch.channels_last):
        samples, places = math.prod(shape) // channels, 1
    else:
        return False
    if counts.shape != (channels,) or not counts.is_contiguous() or not counts.is_cpu:
        return False
    if _kernel is None:  # numba imports slowly
        from lightning_prune.functional.kernels.count_used import count_exceeding

        _kernel = count_exceeding
    low, high = bound / _SAFETY, bound * _SAFETY
    address = values.data_ptr()
    return _kernel(address, samples, channels, places, low, high, counts.data_ptr())


def _used_by_parts(values: Tensor, bound: float, dim: int, activation: Activation | None) -> Tensor:
    """Read some values of each channel, and all of those that these do not decide."""
    part = _part(values, dim)
    used = _exceeds(
        part if activation is None else _applied(activation, part), bound * _SAFETY, dim
    )
    if used.all():
        return used
    index = torch.nonzero(~used).flatten()
    rest = values.index_select(dim, index)
    used[index] = _exceeds(rest if activation is None else _applied(activation, rest), bound, dim)
    return used


def _exceeds(values: Tensor, bound: float, dim: int) -> Tensor:
    """Return which channels' sums of magnitudes exceed a bound."""
    counts = torch.zeros(values.shape[dim], dtype=torch.int64)
    if _count_compiled(counts, values, bound, dim):
        return counts > 0
    return ~(_sums(values, dim) <= bound)


def _applied(activation: Activation, values: Tensor) -> Tensor:
    """Apply an activation that may work in place."""
    return activation(values.clone()).detach()


def _part(values: Tensor, dim: int) -> Tensor:
    """Return some values of each channel, from the middle of the last samples."""
    for place in range(values.ndim):
        if place != dim:
            size = values.shape[place]
            others = values.numel() // (values.shape[dim] * size)
            length = min(size, -(-_PART // others))
            # What was written last may still be in the cache.
            start = (size - length) // 2 if place else size - length
            values = values.narrow(place, start, length) if length < size else values
    return values


def _sums(values: Tensor, dim: int) -> Tensor:
    """Sum the magnitudes of each channel in single precision, without a copy of the values."""
    others = [place for place in range(values.ndim) if place != dim]
    if not others:
        return values.abs().to(_precision(values))
    sums: Tensor = torch.linalg.vector_norm(values, 1, others, dtype=_precision(values))
    return sums


def _precision(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
