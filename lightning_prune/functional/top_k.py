"""Sparsity in space: each channel keeps its strongest places."""

import torch
from torch import Tensor


def keep_strongest(x: Tensor, fraction: float) -> Tensor:
    r"""Zero all but the k largest magnitudes of each sample and channel.

    .. math:: k = \max(1, \lfloor \text{fraction} \cdot H W \rfloor)

    The gradient reaches the places that stay.

    Args:
        x: (B, C, H, W) or (B, C, ...) activations.
        fraction: Fraction of the places that stay, in (0, 1].

    Returns:
        The shape of ``x``.

    Source: the top-k sparsity of the project's CSP_Reset guide.

    >>> keep_strongest(torch.tensor([[[1.0, -3.0, 2.0, 0.5]]]), 0.5).tolist()
    [[[0.0, -3.0, 2.0, 0.0]]]
    """
    places = x.flatten(2)
    count = max(1, int(fraction * places.shape[2]))
    if count >= places.shape[2]:
        return x
    with torch.no_grad():
        strongest = places.abs().topk(count, dim=2, sorted=False).indices
        mask = torch.zeros_like(places).scatter_(2, strongest, 1.0).view_as(x)
    return x * mask
