"""Tensors in, tensors out: the steps of channel selection as plain functions."""

from lightning_prune.functional.clustering import ChannelClustering, cluster_channels
from lightning_prune.functional.dissimilarity import dissimilarity
from lightning_prune.functional.embedding import embed_channels
from lightning_prune.functional.importance import filter_norm, norm_scale
from lightning_prune.functional.kmedoids import KMedoids, kmedoids, kmedoids_sweep
from lightning_prune.functional.knee import find_knee
from lightning_prune.functional.low_channels import low_channels
from lightning_prune.functional.matching import cell_of, match_objects
from lightning_prune.functional.moments import ClassMoments, class_moments, merge_moments
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.functional.penalty import growing_strength
from lightning_prune.functional.selection import ChannelSelection, choose_channels, heaviest_per_cluster, select_channels
from lightning_prune.functional.separability import jeffries_matusita, separability_matrix
from lightning_prune.functional.silhouette import mean_simplified_silhouette
from lightning_prune.functional.width import Width, clip_width, is_selectable

__all__ = [
    "ChannelClustering",
    "ChannelSelection",
    "ClassMoments",
    "KMedoids",
    "ObjectSamples",
    "Width",
    "cell_of",
    "choose_channels",
    "class_moments",
    "clip_width",
    "cluster_channels",
    "dissimilarity",
    "embed_channels",
    "filter_norm",
    "find_knee",
    "growing_strength",
    "heaviest_per_cluster",
    "is_selectable",
    "jeffries_matusita",
    "kmedoids",
    "kmedoids_sweep",
    "low_channels",
    "match_objects",
    "mean_simplified_silhouette",
    "merge_moments",
    "norm_scale",
    "select_channels",
    "separability_matrix",
]
