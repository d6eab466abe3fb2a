"""Which channels of an output are used."""

from collections.abc import Callable

import torch
from torch import Tensor

# Sums of float32 in another order differ by less: what a part decides, the whole would too.
_SAFETY = 1.001


def used_channels(
    output: Tensor,
    threshold: float = 1e-6,
    dim: int = 1,
    activation: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Return which channels of an output are used: larger than a threshold on average.

    .. math:: \text{used}_c = \Big[\frac{1}{N} \sum_{n=1}^{N} |a_{nc}| > t\Big]

    over the N values of channel c in the batch. On the CPU the sum over a few of them decides
    wherever it alone exceeds N t: magnitudes only add to it. On other devices all values are
    read, and nothing waits for the device. NaN counts as used: such a channel is not dormant.

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
    values = output.detach()
    channels = values.shape[dim]
    if values.numel() == 0:
        return torch.zeros(channels, dtype=torch.bool, device=values.device)
    bound = threshold * (values.numel() // channels)
    if values.device.type != "cpu":
        return ~(_sums(values, dim, activation) <= bound)
    part = _middle(values, dim)
    safe = bound * _SAFETY
    sums = _sums(part, 0, activation)
    if float(sums.min()) > safe:
        return torch.ones(channels, dtype=torch.bool)
    used = sums > safe
    open_ones = torch.nonzero(~used).flatten()
    rest = values if len(open_ones) == channels else values.index_select(dim, open_ones)
    used[open_ones] = ~(_sums(rest, dim, activation) <= bound)
    return used


def _middle(values: Tensor, dim: int) -> Tensor:
    """Return one line of values of each channel, (C, n), from the middle of the batch."""
    values = values.movedim(dim, 0)
    while values.ndim > 2:
        values = values.select(1, values.shape[1] // 2)
    return values if values.ndim == 2 else values[:, None]


def _sums(values: Tensor, dim: int, activation: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Sum the magnitudes of each channel in single precision, without a copy of the values."""
    if activation is not None:
        values = activation(values.clone())
    others = [place for place in range(values.ndim) if place != dim % values.ndim]
    if not others:
        return values.abs().float()
    sums: Tensor = torch.linalg.vector_norm(values, 1, others, dtype=_precision(values))
    return sums


def _precision(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
