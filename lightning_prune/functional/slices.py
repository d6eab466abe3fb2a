r"""Slices: the weights of every B-th filter at one input channel and one place of the kernel.

A weight of C_out filters (C_out, C_in, \*kernel), cut into blocks of A = ``block_size``, has
B = C_out / A such sets: the A weights of the filters b, b + B, b + 2B, ... at one (c_in, y, x) are
one slice. Slices are laid out as (B, C_in, \*kernel). Any kernel will do: Conv1d, Conv2d, Conv3d,
grouped ones (C_in is what a filter reads) and Linear (no kernel).
"""

import math

import torch
from torch import Tensor


def filters_first(weight: Tensor, transposed: bool = False, groups: int = 1) -> Tensor:
    r"""Return a weight with its filters in front: (C_out, C_in / groups, \*kernel).

    Args:
        weight: Weight as its layer stores it; a transposed convolution's is
            (C_in, C_out / groups, \*kernel).
        transposed: Whether it is a transposed convolution's.
        groups: Groups of the convolution.

    Returns:
        A view where the layout allows it (all but grouped transposed convolutions).

    >>> tuple(filters_first(torch.zeros(6, 2, 3), transposed=True, groups=2).shape)
    (4, 3, 3)
    """
    if not transposed:
        return weight
    if groups == 1:
        return weight.transpose(0, 1)
    split: Tensor = weight.unflatten(0, (groups, -1))
    return split.transpose(1, 2).flatten(0, 1)


def filters_back(filters: Tensor, transposed: bool = False, groups: int = 1) -> Tensor:
    r"""Undo ``filters_first``.

    >>> weight = torch.arange(36).view(6, 2, 3)
    >>> torch.equal(filters_back(filters_first(weight, True, 2), True, 2), weight)
    True
    """
    if not transposed:
        return filters
    if groups == 1:
        return filters.transpose(0, 1)
    split: Tensor = filters.unflatten(0, (groups, -1))
    return split.transpose(1, 2).flatten(0, 1)


def as_slices(filters: Tensor, block_size: int) -> Tensor:
    r"""View filters (C_out, C_in, \*kernel) as slices (A, B, C_in, \*kernel): one along dim 0.

    Raises:
        ValueError: the block size does not divide the number of filters.

    >>> as_slices(torch.arange(4).view(4, 1), 2)[:, 0, 0].tolist()
    [0, 2]
    """
    if len(filters) % block_size:
        raise ValueError(
            f"{len(filters)} filters do not divide into slices of block_size={block_size}: pass a "
            "divisor of the number of filters"
        )
    slices: Tensor = filters.unflatten(0, (block_size, -1))
    return slices


def slice_norms(filters: Tensor, block_size: int, norm: int = 2) -> Tensor:
    r"""Return the L1 or L2 norm of every slice, (B, C_in, \*kernel), float32 or wider.

    >>> slice_norms(torch.tensor([[3.0], [1.0], [4.0], [0.0]]), 2).tolist()
    [[5.0], [1.0]]
    """
    wide = filters.detach().to(torch.promote_types(filters.dtype, torch.float32))
    slices = as_slices(wide, block_size)
    # vector_norm over the first dimension takes 200 times as long on a CPU.
    return slices.abs().sum(0) if norm == 1 else slices.square().sum(0).sqrt()


def smallest_slices(
    norms: Tensor,
    ratio: float,
    protect_first: bool = False,
    counted: Tensor | None = None,
    held: Tensor | None = None,
) -> Tensor:
    r"""Choose the floor(ratio S) slices with the smallest norms.

    Slices of equal norm are taken in the order of the layout.

    Args:
        norms: (B, C_in, \*kernel) norms of the slices.
        ratio: Fraction of the slices to remove, in [0, 1].
        protect_first: Spare the first element of each kernel row (x = 0; without a kernel, or with
            a kernel one wide, that is every slice). They count in S; where too few others are
            left, fewer slices are chosen.
        counted: Bool, slices that count in S; None: all. The others are not chosen.
        held: Bool, slices that are taken before all others; None: none.

    Returns:
        bool, True = kept.

    >>> smallest_slices(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), 0.5).tolist()
    [[True, False, False, True]]
    >>> smallest_slices(torch.tensor([[[0.5, 1.0, 2.0, 4.0]]]), 0.5, protect_first=True).tolist()
    [[[True, False, False, True]]]
    """
    counted = torch.ones_like(norms, dtype=torch.bool) if counted is None else counted
    free = counted & ~first_of_rows(norms) if protect_first else counted
    # 0.29 * 100 is 28.999999999999996 in floating point.
    number = min(math.floor(ratio * int(counted.sum()) + 1e-9), int(free.sum()))
    order = norms if held is None else norms.masked_fill(held, -1.0)
    order = order.masked_fill(~free, math.inf).flatten()
    mask = torch.ones_like(order, dtype=torch.bool)
    mask[torch.sort(order, stable=True).indices[:number]] = False
    return mask.view_as(norms)


def first_of_rows(slices: Tensor) -> Tensor:
    r"""Mark the slices (B, C_in, \*kernel) at the first place of each kernel row.

    >>> first_of_rows(torch.zeros(1, 1, 2, 3)).tolist()
    [[[[True, False, False], [True, False, False]]]]
    """
    first = torch.zeros(slices.shape, dtype=torch.bool, device=slices.device)
    if slices.ndim < 3:
        return ~first
    first[..., 0] = True
    return first


def expand_slices(mask: Tensor, block_size: int) -> Tensor:
    r"""Repeat a mask of slices (B, C_in, \*kernel) for every weight: (C_out, C_in, \*kernel).

    >>> expand_slices(torch.tensor([[True], [False]]), 2).tolist()
    [[True], [False], [True], [False]]
    """
    return mask.repeat(block_size, *[1] * (mask.ndim - 1))
