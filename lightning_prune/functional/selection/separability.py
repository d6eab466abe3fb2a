"""How well each channel tells each pair of classes apart: Jeffries-Matusita distances."""

import torch
from torch import Tensor

# Channels are worked through in pieces of about this many distances, so that temporaries stay in
# the cache: at C = 512, K = 80 the whole matrix at once is three times slower and takes 100 MB.
_CHUNK = 1 << 16
_STD_FLOOR = 1e-10


def jeffries_matusita(mean_a: Tensor, var_a: Tensor, mean_b: Tensor, var_b: Tensor) -> Tensor:
    r"""Compute the Jeffries-Matusita distance of univariate Gaussians, elementwise.

    .. math:: B = \frac{1}{4} \frac{(m_a - m_b)^2}{v_a + v_b}
                  + \frac{1}{2} \ln \frac{v_a + v_b}{2 s_a s_b}, \qquad JM = 2 (1 - e^{-B})

    A standard deviation of 0 becomes 1e-10. No square root is taken, so the range is [0, 2]:
    0 for equal distributions, 2 for perfectly separable ones.

    Args:
        mean_a: Means m_a of any shape.
        var_a: Population variances v_a = s_a^2, broadcastable.
        mean_b: Means m_b, broadcastable.
        var_b: Population variances v_b, broadcastable.

    Returns:
        Float64 distances of the broadcast shape.

    Source: Bruzzone, Roli, Serpico 1995, "An extension of the Jeffreys-Matusita distance to
    multiclass cases for feature selection", IEEE TGRS 33(6), doi:10.1109/36.477187; used for
    channels by Levin and Singer 2024, "GB-AFS", arXiv:2309.02272.

    >>> a = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    >>> b = 2 * a + 2
    >>> va, vb = a.var(correction=0), b.var(correction=0)
    >>> round(jeffries_matusita(a.mean(), va, b.mean(), vb).item(), 10)
    0.9041005902
    """
    mean_a, mean_b = mean_a.to(torch.float64), mean_b.to(torch.float64)
    std_a, std_b = _std(var_a), _std(var_b)
    total = std_a.square() + std_b.square()
    bhattacharyya = (mean_a - mean_b).square() / (4 * total)
    bhattacharyya = bhattacharyya + 0.5 * torch.log(total / (2 * std_a * std_b))
    # Rounding can leave the logarithm of equal deviations at -1e-16.
    return -2 * torch.expm1(-bhattacharyya.clamp(min=0.0))


def separability_matrix(mean: Tensor, variance: Tensor, count: Tensor) -> Tensor:
    r"""Compute the separability of every pair of classes in every channel.

    Columns follow ``itertools.combinations(range(K), 2)``: (0, 1), (0, 2), ..., (K-2, K-1). A pair
    in which a class has no sample gives 0.

    Args:
        mean: (C, K) class means of each channel.
        variance: (C, K) population variances.
        count: (K,) samples of each class, or (C, K) where channels were sampled differently.

    Returns:
        (C, P) float64 Jeffries-Matusita distances in [0, 2], P = K (K - 1) / 2.

    Raises:
        ValueError: If the shapes disagree, K < 2, a variance is negative, or a value is not
            finite.

    >>> mean = torch.tensor([[0.0, 0.0, 50.0]])
    >>> separability_matrix(mean, torch.ones(1, 3), torch.tensor([9, 9, 9])).tolist()
    [[0.0, 2.0, 2.0]]
    """
    _check_moments(mean, variance, count)
    channels, classes = mean.shape
    first, second = torch.triu_indices(classes, classes, offset=1, device=mean.device)
    seen = torch.broadcast_to(count > 0, mean.shape)
    matrix = torch.empty(channels, first.numel(), dtype=torch.float64, device=mean.device)
    step = max(1, _CHUNK // first.numel())
    for start in range(0, channels, step):
        rows = slice(start, start + step)
        m, v, there = mean[rows], variance[rows], seen[rows]
        distance = jeffries_matusita(m[:, first], v[:, first], m[:, second], v[:, second])
        matrix[rows] = distance * (there[:, first] & there[:, second])
    return matrix


def _std(variance: Tensor) -> Tensor:
    std = variance.to(torch.float64).sqrt()
    return torch.where(std == 0, _STD_FLOOR, std)


def _check_moments(mean: Tensor, variance: Tensor, count: Tensor) -> None:
    if mean.dim() != 2 or variance.shape != mean.shape:
        raise ValueError(
            f"mean {tuple(mean.shape)} and variance {tuple(variance.shape)}: pass both as "
            "(channels, classes)"
        )
    if count.shape not in (mean.shape, mean.shape[1:]):
        raise ValueError(
            f"count has shape {tuple(count.shape)}: pass ({mean.shape[1]},) or {tuple(mean.shape)}"
        )
    if mean.shape[1] < 2:
        raise ValueError(
            f"{mean.shape[1]} class has no pair to separate: add the background as a second class"
        )
    if not bool(torch.isfinite(mean).all() & torch.isfinite(variance).all()):
        raise ValueError("means or variances are NaN or infinite: look for overflow of activations")
    if bool((variance < 0).any()):
        raise ValueError(f"variance {variance.min().item()} is negative: pass population variances")
