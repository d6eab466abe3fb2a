"""Strength of the growing group-norm penalty."""

import torch
from torch import Tensor

# Norms that differ by less are equal up to the rounding of float32 sums.
_EQUAL = 1e-6


def growing_strength(
    norms: Tensor, alpha: float = 4.0, group: Tensor | None = None, active: Tensor | None = None
) -> Tensor:
    r"""Return how strongly each channel is penalized: the weaker, the more.

    .. math:: s_k = 2^{\alpha (I_{max} - I_k) / (I_{max} - I_{min})}

    with the extremes over the active channels of the channel's group. The gradient of the penalty
    on a weight w of channel k is :math:`s_k w` times its strength. Where all active channels of a
    group are equally important (up to float32 rounding), s is 1.

    Args:
        norms: (C,) importance I >= 0 of the channels of one or several groups.
        alpha: The weakest channel's s is 2 to this power; >= 0.
        group: (C,) int64, each channel's group, 0 to G-1; None: one group.
        active: (C,) bool; the others (masked channels) do not enter the extremes and get 0;
            None: all.

    Returns:
        (C,) strengths s, 1 for the strongest channel to :math:`2^\alpha` for the weakest.

    Raises:
        ValueError: norms is not a vector, or alpha is negative.

    Source: Fang, Ma, Song, Mi, Wang, 2023, DepGraph: Towards Any Structural Pruning, CVPR,
    arXiv 2301.12900 (the "growing" regularization of its group-norm pruner).

    >>> growing_strength(torch.tensor([1.0, 3.0, 2.0])).tolist()
    [16.0, 1.0, 4.0]
    """
    if norms.ndim != 1:
        raise ValueError(f"norms has shape {tuple(norms.shape)}: pass one number per channel, (C,)")
    if not alpha >= 0:
        raise ValueError(f"alpha={alpha}: pass 0 (all channels alike) or more, for example 4")
    if group is None:
        group = torch.zeros(len(norms), dtype=torch.int64, device=norms.device)
    high = low = norms
    if active is not None:
        high = norms.masked_fill(~active, -torch.inf)
        low = norms.masked_fill(~active, torch.inf)
    # As many slots as channels: the number of groups would have to be read from the device.
    largest = torch.zeros_like(norms).scatter_reduce(0, group, high, "amax", include_self=False)
    least = torch.zeros_like(norms).scatter_reduce(0, group, low, "amin", include_self=False)
    largest, least = largest[group], least[group]
    span = largest - least
    differ = span > _EQUAL * largest
    weakness = torch.where(differ, (largest - norms) / torch.where(differ, span, 1), 0)
    strength = torch.exp2(alpha * weakness)
    return strength if active is None else strength.masked_fill(~active, 0)
