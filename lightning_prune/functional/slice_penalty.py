"""The penalty that pushes slices of a weight towards zero, and its gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.functional.slices import as_slices, first_of_rows

LEAST_NORM = 1e-4
"""Below this norm the penalty on a slice falls with the norm instead of growing without bound.

A slice that weight decay has brought to 1e-15 would get a gradient of 1e15 reg. The reference
implementation adds 1e-8, the square of this, to its denominator for the same reason.
"""


@dataclass(frozen=True)
class SlicePenalty:
    """The penalty of one weight.

    Attributes:
        value: Reg times the number of slices that are not zero; its gradient is reg s / |s|^2.
        log_sum: Sum of log |s| over these slices: what that gradient descends, up to reg.
        nonzero: Number of slices that are not zero.
        slices: Number of slices that count.
    """

    value: Tensor
    log_sum: Tensor
    nonzero: Tensor
    slices: int


def slice_penalty(
    filters: Tensor, block_size: int, reg: float = 1.0, protect_first: bool = False
) -> SlicePenalty:
    r"""Return the number of non-zero slices times reg, with a gradient that makes them fewer.

    .. math:: \text{value} = \text{reg} \sum_s [s \ne 0], \qquad
        \frac{\partial\,\text{value}}{\partial s} := \text{reg} \frac{s}{\|s\|^2}
        = \text{reg} \frac{\partial \log \|s\|}{\partial s}

    The count itself has no gradient; that of the sum of log norms is its proxy. Slices that
    are zero get none. Below ``LEAST_NORM`` the denominator stays at its square.

    Args:
        filters: (C_out, C_in, \*kernel), filters in front; see ``filters_first``.
        block_size: A, weights per slice; divides C_out.
        reg: Strength, at least 0.
        protect_first: Leave out the first element of each kernel row.

    Raises:
        ValueError: the block size does not divide C_out.

    >>> weight = torch.tensor([[3.0], [0.0], [4.0], [0.0]], requires_grad=True)
    >>> penalty = slice_penalty(weight, 2, reg=0.5)
    >>> penalty.value.backward()
    >>> penalty.value.item(), [round(g, 2) for g in weight.grad.flatten().tolist()]
    (0.5, [0.06, 0.0, 0.08, 0.0])
    """
    squares = _squares(filters, block_size)
    counts = ~first_of_rows(squares) if protect_first else torch.ones_like(squares).bool()
    active = (squares > 0) & counts
    floor = LEAST_NORM**2
    logs = 0.5 * squares.where(active, 1.0).log()
    bounded = 0.5 * squares.clamp(min=floor).log() + 0.5 * (squares / floor).clamp(max=1.0)
    proxy = bounded.where(active, 0.0).sum()
    nonzero = active.sum()
    # proxy - proxy.detach() is exactly 0 and lends its gradient.
    value = reg * (nonzero + (proxy - proxy.detach()))
    return SlicePenalty(value, logs.detach().sum(), nonzero, int(counts.sum()))


@torch.no_grad()
def slice_gradient(
    filters: Tensor, block_size: int, reg: float = 1.0, protect_first: bool = False
) -> Tensor:
    r"""Return the gradient of ``slice_penalty`` in closed form, of the filters' shape and type.

    .. math:: g_s = \text{reg} \frac{s}{\|s\|^2}, \qquad g_s = 0 \text{ where } s = 0

    >>> slice_gradient(torch.tensor([[3.0], [0.0], [4.0], [0.0]]), 2, 25.0).flatten().tolist()
    [3.0, 0.0, 4.0, 0.0]
    """
    scale = slice_penalty_factors(filters, block_size, reg, protect_first)
    return (as_slices(filters, block_size) * scale).flatten(0, 1).to(filters.dtype)


@torch.no_grad()
def slice_penalty_factors(
    filters: Tensor, block_size: int, reg: float = 1.0, protect_first: bool = False
) -> Tensor:
    r"""Return what the weights are multiplied by to get that gradient, slice by slice.

    .. math:: p_s = \frac{\text{reg}}{\|s\|^2}

    Returns:
        (B, C_in, \*kernel), float32 or wider; not 0 for slices that are zero.

    >>> slice_penalty_factors(torch.tensor([[3.0], [1.0], [4.0], [1.0]]), 2, 25.0).tolist()
    [[1.0], [12.5]]
    """
    factors = _squares(filters, block_size).clamp_(min=LEAST_NORM**2).reciprocal_().mul_(reg)
    return factors.masked_fill_(first_of_rows(factors), 0.0) if protect_first else factors


def _squares(filters: Tensor, block_size: int) -> Tensor:
    wide = filters.to(torch.promote_types(filters.dtype, torch.float32))
    return as_slices(wide, block_size).square().sum(0)
