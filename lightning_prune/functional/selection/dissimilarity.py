"""Pairwise dissimilarities of points."""

import torch
from torch import Tensor


def dissimilarity(points: Tensor) -> Tensor:
    r"""Compute the Euclidean distance of every pair of points.

    .. math:: d_{ij} = \lVert x_i - x_j \rVert_2

    Differences are formed before they are squared. The faster expansion by dot products leaves a
    point at a distance of about 1e-8 from itself, and a silhouette counts that as a distance.

    Args:
        points: (n, dims).

    Returns:
        (n, n) float64 on the CPU, exactly symmetric, exactly 0 on the diagonal.

    >>> dissimilarity(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    if points.dim() != 2:
        raise ValueError(f"points have shape {tuple(points.shape)}: pass (points, dimensions)")
    points = points.detach().to(device="cpu", dtype=torch.float64)
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
