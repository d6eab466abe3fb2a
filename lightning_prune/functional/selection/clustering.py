"""Channels grouped by what they separate, for every number of groups (steps 3 to 6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.functional.selection.dissimilarity import dissimilarity
from lightning_prune.functional.selection.embedding import Embedding, embed_channels
from lightning_prune.functional.selection.kmedoids import Backend, KMedoids, kmedoids_sweep
from lightning_prune.functional.selection.knee import Interpolation, find_knee
from lightning_prune.functional.selection.profiles import count_profiles
from lightning_prune.functional.selection.silhouette import Other, mean_simplified_silhouette
from lightning_prune.functional.widths.width import is_selectable


@dataclass(frozen=True)
class ChannelClustering:
    """Clusterings of C channels around k of them, for every k, and the knee of their MSS.

    Attributes:
        matrix: (C, P) float64 separability that was clustered.
        embedding: (C, 2) float64 points ((C, P) where none was asked for).
        method: "tsne", "pca" or "none".
        clusters: C clusterings, of 1, 2, ..., C clusters.
        k_values: (C - 2,) int64, the numbers of clusters 2..C-1 of the curve.
        mss: (C - 2,) float64, mean simplified silhouette at ``k_values``.
        knee: The knee of that curve, or None. It lies near C / 2 whatever the rows are, as the
            curve rises like a parabola.
        count: How many different rows there are, 1..C; see :func:`count_profiles`.
        distance: Root mean square difference up to which rows counted as the same, in [0, 2].
    """

    matrix: Tensor
    embedding: Tensor
    method: Embedding
    clusters: tuple[KMedoids, ...]
    k_values: Tensor
    mss: Tensor
    knee: int | None
    count: int
    distance: float

    @property
    def channels(self) -> int:
        """Return the number of channels C."""
        return self.matrix.shape[0]

    def at(self, k: int) -> KMedoids:
        """Return the clustering into k clusters, 1..C.

        Raises:
            ValueError: If k is outside 1..C.
        """
        if not 1 <= k <= self.channels:
            raise ValueError(f"k={k} is outside 1..{self.channels}, the channels of the layer")
        return self.clusters[k - 1]


def cluster_channels(
    matrix: Tensor,
    *,
    embedding: Embedding = "tsne",
    perplexity: float = 10.0,
    other: Other = "mean",
    interpolation: Interpolation = "polynomial",
    seed: int = 0,
    backend: Backend = "native",
    noise: Sequence[Tensor] | None = None,
) -> ChannelClustering:
    """Cluster channels by their separability for every number of clusters, and find the knee.

    Beside the knee, different profiles are counted; that follows the data, and the knee does not.

    Args:
        matrix: (C, P) separability, C > 3 (see :func:`is_selectable`), P >= 1. For tied layers:
            their matrices side by side.
        embedding: "tsne", "pca" or "none", see :func:`embed_channels`.
        perplexity: Of t-SNE.
        other: "mean" or "nearest", see :func:`mean_simplified_silhouette`.
        interpolation: "polynomial" or "interp1d", see :func:`find_knee`.
        seed: The same seed and matrix give the same clusters.
        backend: "native" or "sklearn_extra", see :func:`kmedoids_sweep`.
        noise: Errors of the estimated matrix, see :func:`count_profiles`; None: unknown.

    Raises:
        ValueError: If the matrix is too small, NaN or infinite, or an option is unknown.

    >>> groups = torch.arange(12)[:, None] // 3 * 0.5 + torch.linspace(0.0, 0.01, 12)[:, None]
    >>> clustering = cluster_channels(groups, embedding="none")
    >>> clustering.at(4).labels.tolist(), clustering.k_values.tolist()
    ([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    >>> clustering.count
    4
    """
    if matrix.dim() == 2 and not is_selectable(matrix.shape[0]):
        raise ValueError(
            f"{matrix.shape[0]} channels are too few to choose among: ask is_selectable() first "
            "and leave such layers alone"
        )
    points = embed_channels(matrix, embedding, perplexity=perplexity, seed=seed)
    diss = dissimilarity(points)
    channels = len(points)
    clusters = kmedoids_sweep(diss, range(1, channels + 1), seed, backend)
    k_values = range(2, channels)
    mss = [
        mean_simplified_silhouette(diss, clusters[k - 1].medoids, clusters[k - 1].labels, other)
        for k in k_values
    ]
    profiles = count_profiles(matrix.detach(), noise)
    return ChannelClustering(
        matrix=matrix.detach().to(device="cpu", dtype=torch.float64),
        embedding=points,
        method=embedding,
        clusters=tuple(clusters),
        k_values=torch.tensor(k_values),
        mss=torch.tensor(mss, dtype=torch.float64),
        knee=find_knee(k_values, mss, interpolation),
        count=profiles.count,
        distance=profiles.distance,
    )
