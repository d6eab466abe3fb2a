"""Importance of output channels read from the weights alone, larger = keep."""

from typing import Literal

from torch import Tensor

from lightning_prune.arguments import MacRoot, MacWeight
from lightning_prune.validation import validated

Aggregation = Literal["sum", "mul"]
"""How importance and MACs are joined."""


@validated
def filter_norm(weight: Tensor, p: Literal[1, 2] = 1) -> Tensor:
    r"""Compute the norm of every filter.

    .. math:: I_c = \lVert w_c \rVert_p

    Args:
        weight: (C, ...) weight w of a convolution or linear layer, output channels first.
        p: 1 for the sum of absolute values, 2 for the Euclidean norm.

    Returns:
        (C,) float64 norms.

    Raises:
        ValueError: If the weight has no axis beside the channels, or p is neither 1 nor 2.

    Source: Li, Kadav, Durdanovic, Samet, Graf 2017, "Pruning filters for efficient ConvNets",
    arXiv:1608.08710.

    >>> import torch
    >>> filter_norm(torch.tensor([[3.0, -4.0], [1.0, 0.0]]), p=2).tolist()
    [5.0, 1.0]
    """
    if weight.dim() < 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: pass (channels, ...)")
    flat = weight.detach().flatten(1).double()
    return flat.abs().sum(dim=1) if p == 1 else flat.square().sum(dim=1).sqrt()


def norm_scale(gamma: Tensor) -> Tensor:
    r"""Compute the absolute scale of every channel of a normalisation, :math:`|\gamma_c|`.

    Args:
        gamma: (C,) scale, the ``weight`` of a batch normalisation.

    Returns:
        (C,) float64.

    Raises:
        ValueError: If gamma is not one-dimensional.

    Source: Liu et al. 2017, "Learning efficient convolutional networks through network slimming",
    arXiv:1708.06519.

    >>> import torch
    >>> norm_scale(torch.tensor([0.5, -2.0])).tolist()
    [0.5, 2.0]
    """
    if gamma.dim() != 1:
        raise ValueError(f"gamma has shape {tuple(gamma.shape)}: pass (channels,)")
    return gamma.detach().double().abs()


@validated
def mac_aware(
    importance: Tensor,
    macs: float,
    macs_range: tuple[float, float],
    largest: float,
    aggregation: Aggregation = "sum",
    alpha: MacWeight = 0.9,
    beta: MacRoot = 2.0,
) -> Tensor:
    r"""Lower the importance of a group's channels the more MACs its root layer costs.

    .. math::
        sum: \quad \alpha \frac{A}{\max A} + (1 - \alpha) \left(1 - \hat m\right), \quad
        \hat m = \frac{m - \min m}{\max m - \min m}; \qquad
        mul: \quad A \left(\frac{\min m}{m}\right)^{1 / \beta}

    where the normalised MACs are 0.5 if all layers cost the same.

    Args:
        importance: (C,) importance A of one group's channels.
        macs: m, MACs of the group's root layer, more than 0.
        macs_range: Min m and max m over the groups that are ranked together.
        largest: Max A over those groups, of ``sum`` only; where it is 0, A is left as it is.
        aggregation: ``sum`` or ``mul``.
        alpha: Weight of the importance in ``sum``, in [0, 1].
        beta: Root of the MACs' ratio in ``mul``, more than 0: the larger, the less MACs count.

    Returns:
        (C,), larger = keep.

    Raises:
        ValueError: an argument is out of range.

    Source: the MAC-aware importance of sirc-torch-pruning (A. Raviv), on the group importance of
    Fang et al., 2023, arXiv 2301.12900.

    >>> import torch
    >>> mac_aware(torch.tensor([1.0, 2.0]), 30, (10, 50), largest=4.0, alpha=0.5).tolist()
    [0.375, 0.5]
    >>> mac_aware(torch.tensor([1.0, 2.0]), 40, (10, 50), largest=4.0, aggregation="mul").tolist()
    [0.5, 1.0]
    """
    least, most = macs_range
    if not 0 < least <= macs <= most:
        raise ValueError(f"macs={macs} must be in macs_range={macs_range}, above 0")
    if aggregation == "mul":
        return importance * float((least / macs) ** (1 / beta))
    relative = 0.5 if most == least else (macs - least) / (most - least)
    return alpha * importance / (largest or 1.0) + (1 - alpha) * (1 - relative)
