"""Tensors in, tensors out: the steps of channel selection as plain functions."""

from lightning_prune.functional.importance import filter_norm, norm_scale
from lightning_prune.functional.low_channels import low_channels
from lightning_prune.functional.matching import cell_of, match_objects
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.functional.penalty import growing_strength
from lightning_prune.functional.selection.clustering import ChannelClustering, cluster_channels
from lightning_prune.functional.selection.dissimilarity import dissimilarity
from lightning_prune.functional.selection.embedding import embed_channels
from lightning_prune.functional.selection.kmedoids import KMedoids, kmedoids, kmedoids_sweep
from lightning_prune.functional.selection.knee import find_knee
from lightning_prune.functional.selection.moments import ClassMoments, class_moments, merge_moments
from lightning_prune.functional.selection.profiles import count_profiles
from lightning_prune.functional.selection.selection import (
    ChannelSelection,
    choose_channels,
    heaviest_per_cluster,
    select_channels,
)
from lightning_prune.functional.selection.separability import jeffries_matusita, separability_matrix
from lightning_prune.functional.selection.silhouette import mean_simplified_silhouette
from lightning_prune.functional.widths.width import Width, clip_width, is_selectable

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
    "count_profiles",
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
