"""One figure per group: why these channels stay."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lightning_prune.functional.selection.clustering import ChannelClustering

_SEPARATED = 32
"""Channels up to which lines between the clusters can be told apart."""
KEPT, LINE, QUIET = "#d1495b", "#00798c", "#9aa5b1"


def selection_figure(
    clustering: ChannelClustering, keep: Tensor | Sequence[int], width: int, title: str
) -> Figure:
    """Draw the embedding with its clusters, the MSS curve, and the separability matrix.

    Args:
        clustering: Clusters of the C channels for every k.
        keep: Channels that stay, drawn in red.
        width: Number of clusters that are shown, 1..C: the chosen width.
        title: Title of the figure, usually the group's name.

    Returns:
        A figure of 12 by 4 inches on an Agg canvas; ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: the width is not in 1..C, or a kept channel is not in 0..C-1.
    """
    kept = np.unique(np.asarray(keep, dtype=np.int64))
    if len(kept) == 0 or kept[0] < 0 or kept[-1] >= clustering.channels:
        raise ValueError(f"keep={kept.tolist()}: pass channels in 0..{clustering.channels - 1}")
    labels = clustering.at(width).labels.numpy()
    figure = Figure(figsize=(12, 4))
    FigureCanvasAgg(figure)
    # Fixed places: a layout engine would double the time of a figure.
    grid = {"left": 0.015, "right": 0.97, "bottom": 0.125, "top": 0.86, "wspace": 0.17}
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 0.9, 1.25), gridspec_kw=grid)
    _draw_embedding(left, clustering, labels, kept)
    _draw_curve(middle, clustering, width)
    _draw_matrix(figure, right, clustering, labels, kept)
    figure.suptitle(f"{title}: {len(kept)} of {clustering.channels} channels stay", fontsize=12)
    return figure


def _draw_embedding(
    axes: Axes, clustering: ChannelClustering, labels: np.ndarray, kept: np.ndarray
) -> None:
    """Draw every channel, joined to the one that stands for its cluster."""
    points = clustering.embedding.numpy()
    points = np.column_stack([points, np.zeros(len(points))])[:, :2]  # a single column: on a line
    size = float(np.clip(3000 / len(points), 12, 70))
    representative = np.full(labels.max() + 1, -1)
    representative[labels[kept]] = kept
    owner = representative[labels]
    joined = np.flatnonzero(owner >= 0)
    lines = np.stack([points[joined], points[owner[joined]]], axis=1)
    axes.add_collection(LineCollection(list(lines), colors=QUIET, linewidths=0.8, zorder=1))
    removed = np.setdiff1d(np.arange(len(points)), kept)
    axes.scatter(
        points[removed, 0], points[removed, 1], s=0.6 * size, color=QUIET, label="removed", zorder=2
    )
    axes.scatter(points[kept, 0], points[kept, 1], s=size, color=KEPT, edgecolor="white",
                 linewidth=0.6, label="stay", zorder=3)  # fmt: skip
    name = {"tsne": "t-SNE", "pca": "PCA", "none": "first two columns"}[clustering.method]
    axes.set(xticks=[], yticks=[], title=f"Channels ({name}), lines join a cluster")
    axes.legend(loc="best", fontsize=8, frameon=True, framealpha=0.8)
    axes.margins(0.06)


def _draw_curve(axes: Axes, clustering: ChannelClustering, width: int) -> None:
    """Draw the mean simplified silhouette over the number of clusters."""
    k_values, mss = clustering.k_values.numpy(), clustering.mss.numpy()
    marker = "o" if len(k_values) < 20 else None
    axes.plot(k_values, mss, color=LINE, linewidth=1.6, marker=marker, markersize=4)
    axes.axvline(width, color=KEPT, label=f"chosen {width}")
    if clustering.knee is not None:
        axes.axvline(clustering.knee, color="black", linestyle=":", label=f"knee {clustering.knee}")
    axes.set(xlabel="number of clusters k", title="Mean simplified silhouette")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", fontsize=8, framealpha=0.8)


def _draw_matrix(
    figure: Figure,
    axes: Axes,
    clustering: ChannelClustering,
    labels: np.ndarray,
    kept: np.ndarray,
) -> None:
    """Draw the separability matrix, channels of one cluster together, kept ones marked."""
    matrix = clustering.matrix.numpy()
    order = np.lexsort((np.arange(len(labels)), labels, _rank_of_clusters(matrix, labels)))
    # Most pairs of most layers lie far below 2: on the full scale the map would be black.
    highest = float(matrix[order].max()) or 2.0
    image = axes.imshow(matrix[order], aspect="auto", interpolation="nearest", cmap="viridis",
                        vmin=0, vmax=highest)  # fmt: skip
    if len(order) <= _SEPARATED:
        for place in np.flatnonzero(np.diff(labels[order])):
            axes.axhline(place + 0.5, color="white", linewidth=0.7)
    places = np.flatnonzero(np.isin(order, kept))
    edge = np.full(len(places), 1.012)
    axes.scatter(edge, places, transform=axes.get_yaxis_transform(), clip_on=False, marker="<",
                 s=float(np.clip(900 / len(order), 2, 24)), color=KEPT, linewidth=0)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="pair of classes", ylabel="channels, cluster by cluster", yticks=[],
             title="Separability (0 alike, 2 apart)")  # fmt: skip
    figure.colorbar(image, ax=axes, pad=0.04, fraction=0.05)


def _rank_of_clusters(matrix: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank each channel's cluster by its mean separability, so that the image runs smoothly."""
    counts = np.bincount(labels)
    means = np.bincount(labels, weights=matrix.mean(axis=1)) / counts
    rank: np.ndarray = np.argsort(np.argsort(means, kind="stable"), kind="stable")
    return np.asarray(rank[labels])
