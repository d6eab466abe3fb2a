"""Mean simplified silhouette: how well medoids describe their clusters."""

from typing import Literal

import torch
from torch import Tensor

Other = Literal["mean", "nearest"]


def mean_simplified_silhouette(
    diss: Tensor, medoids: Tensor, labels: Tensor, other: Other = "mean"
) -> float:
    r"""Compute the mean simplified silhouette (MSS) of a clustering.

    .. math:: s_i = \frac{b_i - a_i}{\max(a_i, b_i)}, \qquad
              MSS = \frac{1}{|I|} \sum_{i \in I} s_i, \quad I = \{i : a_i > 0\}

    a_i is the distance of point i to its own medoid; b_i the mean distance to all other medoids,
    or the distance to the nearest of them. Points at distance 0 from their medoid do not count;
    without any other point the MSS is 1. It tends to 1 as k approaches n, so its maximum says
    nothing and only its knee does.

    Args:
        diss: (n, n) symmetric dissimilarities.
        medoids: (k,) indices of the medoids, k >= 2.
        labels: (n,) position in ``medoids`` of each point's medoid.
        other: "mean" (the method's papers and code) or "nearest".

    Raises:
        ValueError: If k < 2, the shapes disagree, or ``other`` is unknown.

    Source: Levin and Singer 2024, "GB-AFS: graph-based automatic feature selection for
    multi-class classification via Mean Simplified Silhouette", Journal of Big Data 11:79,
    arXiv:2309.02272.

    >>> points = torch.tensor([[0.0, 0], [0, 1], [5, 5], [5, 6], [10, 0]], dtype=torch.float64)
    >>> medoids, labels = torch.tensor([0, 2, 4]), torch.tensor([0, 0, 1, 1, 2])
    >>> round(mean_simplified_silhouette(torch.cdist(points, points), medoids, labels), 9)
    0.87520237
    """
    k = medoids.numel()
    if k < 2:
        raise ValueError(f"{k} medoid leaves no other one to compare with: pass at least 2")
    if diss.dim() != 2 or labels.shape != diss.shape[:1]:
        raise ValueError(
            f"diss {tuple(diss.shape)} and labels {tuple(labels.shape)}: pass (n, n) and (n,)"
        )
    if other not in ("mean", "nearest"):
        raise ValueError(f'other={other!r}: choose "mean" or "nearest"')
    to_medoids = diss[medoids].to(torch.float64)  # (k, n): rows are four times faster than columns
    own = labels[None]
    a = to_medoids.gather(0, own)[0]
    if other == "mean":
        b = to_medoids.scatter(0, own, 0.0).sum(dim=0) / (k - 1)
    else:
        b = to_medoids.scatter(0, own, torch.inf).amin(dim=0)
    a, b = a[a > 0], b[a > 0]
    return float(((b - a) / torch.maximum(a, b)).mean()) if a.numel() else 1.0
