"""Which channels a layer keeps: one for every group of channels that separate classes alike."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.functional.selection.clustering import ChannelClustering, cluster_channels
from lightning_prune.functional.selection.embedding import Embedding
from lightning_prune.functional.selection.kmedoids import Backend
from lightning_prune.functional.selection.knee import Interpolation
from lightning_prune.functional.selection.silhouette import Other
from lightning_prune.functional.widths.width import Bound, Width, clip_width


@dataclass(frozen=True)
class ChannelSelection:
    """The channels to keep, and everything that led to them.

    Attributes:
        keep: (k,) int64, the channels to keep, sorted.
        matrix: (C, P) float64 separability.
        embedding: (C, 2) float64 points ((C, P) where none was asked for).
        method: How they were embedded: "tsne", "pca" or "none".
        k_values: (C - 2,) int64, numbers of clusters 2..C-1.
        mss: (C - 2,) float64, mean simplified silhouette at ``k_values``.
        knee: The knee of the curve, or None.
        k: The number of channels kept.
        bound: What decided k, see :class:`Width`.
        labels: (C,) int64, cluster of each channel among the k.
        medoids: (k,) int64, medoid of each cluster.
        weights: (C,) float64, the importance that decided within the clusters.
    """

    keep: Tensor
    matrix: Tensor
    embedding: Tensor
    method: Embedding
    k_values: Tensor
    mss: Tensor
    knee: int | None
    k: int
    bound: Bound
    labels: Tensor
    medoids: Tensor
    weights: Tensor


def heaviest_per_cluster(labels: Tensor, weights: Tensor) -> Tensor:
    """Return the channel of the largest weight of every cluster, the first one on ties.

    Args:
        labels: (C,) int64 clusters 0..k-1, none of them empty.
        weights: (C,) importance.

    Returns:
        (k,) int64 channels in the order of the clusters.

    >>> heaviest_per_cluster(torch.tensor([0, 1, 0, 1]), torch.tensor([1.0, 3.0, 2.0, 3.0]))
    tensor([2, 1])
    """
    in_cluster = labels == torch.arange(int(labels.max()) + 1, device=labels.device)[:, None]
    if not bool(in_cluster.any(dim=1).all()):
        raise ValueError("a cluster is empty: number the clusters 0..k-1 without gaps")
    return torch.where(in_cluster, weights, -torch.inf).argmax(dim=1)


def choose_channels(
    clustering: ChannelClustering,
    weights: Tensor,
    k: int | None = None,
    *,
    keep_range: tuple[float, float] | None = (0.25, 0.5),
    round_to: int = 1,
) -> ChannelSelection:
    """Choose one channel per cluster (steps 7 and 8).

    Args:
        clustering: Clusters for every k.
        weights: (C,) importance of the channels, larger = keep.
        k: A width that was planned elsewhere, taken as it is, 1..C; None takes the knee within
            the bounds.
        keep_range: See :func:`clip_width`; not used where k is given.
        round_to: See :func:`clip_width`; not used where k is given.

    Raises:
        ValueError: If the weights are not one finite number for each channel, or an argument is
            outside what is allowed.
    """
    weights = _checked_weights(weights, clustering.channels)
    if k is None:
        width = clip_width(clustering.knee, clustering.channels, keep_range, round_to)
    else:
        width = Width(k, "given")
    chosen = clustering.at(width.width)
    return ChannelSelection(
        keep=heaviest_per_cluster(chosen.labels, weights).sort().values,
        matrix=clustering.matrix,
        embedding=clustering.embedding,
        method=clustering.method,
        k_values=clustering.k_values,
        mss=clustering.mss,
        knee=clustering.knee,
        k=width.width,
        bound=width.bound,
        labels=chosen.labels,
        medoids=chosen.medoids,
        weights=weights,
    )


def select_channels(
    matrix: Tensor,
    weights: Tensor,
    *,
    keep_range: tuple[float, float] | None = (0.25, 0.5),
    round_to: int = 1,
    k: int | None = None,
    embedding: Embedding = "tsne",
    perplexity: float = 10.0,
    other: Other = "mean",
    interpolation: Interpolation = "polynomial",
    seed: int = 0,
    backend: Backend = "native",
) -> ChannelSelection:
    """Select the channels of a layer by what they separate and by how strong they are.

    Embeds the channels, clusters them for every number of clusters, takes the knee of the mean
    simplified silhouette within bounds, and keeps the channel with the largest weight of every
    cluster. To choose again at another width without clustering again, use
    :func:`cluster_channels` and :func:`choose_channels`.

    Args:
        matrix: (C, P) separability, see :func:`separability_matrix`; C > 3.
        weights: (C,) importance, e.g. :func:`filter_norm`.
        keep_range: Smallest and largest fraction of the channels kept; None for the bare knee.
        round_to: The number kept becomes a multiple of this.
        k: A width that was planned elsewhere, instead of the knee and its bounds.
        embedding: "tsne", "pca" or "none".
        perplexity: Of t-SNE.
        other: "mean" or "nearest" other medoid in the silhouette.
        interpolation: "polynomial" or "interp1d" in the search for the knee.
        seed: The same input and seed give the same channels.
        backend: "native" or "sklearn_extra" k-medoids.

    Raises:
        ValueError: If the input is NaN, infinite or of the wrong shape, C <= 3 (ask
            :func:`is_selectable` first), or an option is not allowed.
        ImportError: If the backend is not installed.

    Source: Levin and Singer 2024, "GB-AFS: graph-based automatic feature selection for
    multi-class classification via Mean Simplified Silhouette", Journal of Big Data 11:79,
    arXiv:2309.02272; its use on CNN channels: arXiv:2505.13225.

    >>> matrix = torch.tensor([[0.0, 2.0], [0.1, 2.0], [2.0, 0.0], [2.0, 0.1], [1.0, 1.0]])
    >>> weights = torch.tensor([1.0, 5.0, 4.0, 1.0, 3.0])
    >>> select_channels(matrix, weights, embedding="none", k=3).keep
    tensor([1, 2, 4])
    """
    _checked_weights(weights, matrix.shape[0])  # before minutes of clustering
    clustering = cluster_channels(
        matrix,
        embedding=embedding,
        perplexity=perplexity,
        other=other,
        interpolation=interpolation,
        seed=seed,
        backend=backend,
    )
    return choose_channels(clustering, weights, k, keep_range=keep_range, round_to=round_to)


def _checked_weights(weights: Tensor, channels: int) -> Tensor:
    if weights.shape != (channels,):
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}: pass one number for each of the "
            f"{channels} channels, e.g. filter_norm(conv.weight)"
        )
    if not bool(torch.isfinite(weights).all()):
        raise ValueError("weights hold NaN or infinite values: the layer has diverged")
    return weights.detach().to(device="cpu", dtype=torch.float64)
