"""Tensors in, tensors out: the steps of channel selection as plain functions."""

from .clustering import ChannelClustering, cluster_channels
from .dissimilarity import dissimilarity
from .embedding import embed_channels
from .importance import filter_norm, norm_scale
from .kmedoids import KMedoids, kmedoids, kmedoids_sweep
from .knee import find_knee
from .low_channels import low_channels
from .matching import cell_of, match_objects
from .moments import ClassMoments, class_moments, merge_moments
from .objects import ObjectSamples
from .penalty import growing_strength
from .selection import ChannelSelection, choose_channels, heaviest_per_cluster, select_channels
from .separability import jeffries_matusita, separability_matrix
from .silhouette import mean_simplified_silhouette
from .width import Width, clip_width, is_selectable

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
