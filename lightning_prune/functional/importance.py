"""Importance of output channels read from the weights alone, larger = keep."""

from torch import Tensor


def filter_norm(weight: Tensor, p: int = 1) -> Tensor:
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
    if p not in (1, 2):
        raise ValueError(f"p={p}: choose 1 (sum of absolute values) or 2 (Euclidean norm)")
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
