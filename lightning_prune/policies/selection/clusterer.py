"""How channels are clustered by what they separate: the settings of steps 2 to 6."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lightning_prune.annotations import Above
from lightning_prune.functional.selection.clustering import ChannelClustering, cluster_channels
from lightning_prune.functional.selection.embedding import Embedding
from lightning_prune.functional.selection.kmedoids import Backend
from lightning_prune.functional.selection.knee import Interpolation
from lightning_prune.functional.selection.moments import ClassMoments
from lightning_prune.functional.selection.profiles import estimation_noise
from lightning_prune.functional.selection.separability import separability_matrix
from lightning_prune.functional.selection.silhouette import Other
from lightning_prune.functional.selection.sklearn_extra_pam import check_installed
from lightning_prune.graph.channel_rows import add_to_channels
from lightning_prune.graph.group import Group
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.criteria.non_finite_importance import check_finite
from lightning_prune.validation import validated

_LEAST_IN_A_HALF = 2


@validated
@dataclass(frozen=True)
class ChannelClusterer:
    """Cluster a group's channels from the class statistics of its producers.

    Tied producers stand side by side: their separability matrices are joined along the columns,
    so that one decision serves the group.

    Args:
        embedding: ``tsne``, ``pca`` or ``none`` (cluster the matrix's rows themselves).
        perplexity: Perplexity of t-SNE, lowered where a layer has few channels.
        other: ``mean`` or ``nearest`` other medoid in the silhouette.
        interpolation: ``polynomial`` (degree 2) or ``interp1d`` fit of the curve before the knee.
        backend: ``native`` or ``sklearn_extra`` k-medoids.
        seed: Seed of the embedding and of k-medoids.

    Raises:
        ValueError: an unknown name or a perplexity that is not positive.
    """

    embedding: Embedding = "tsne"
    perplexity: Annotated[float, Above(0, "for example 10")] = 10.0
    other: Other = "mean"
    interpolation: Interpolation = "polynomial"
    backend: Backend = "native"
    seed: int = 0

    def check(self) -> None:
        """Check before training that the backend is there.

        Raises:
            ValueError: it is not installed.
        """
        if self.backend == "sklearn_extra":
            try:
                check_installed()
            except ImportError as error:
                raise ValueError(f"clusterer.backend='sklearn_extra': {error}") from error

    def cluster(
        self,
        group: Group,
        moments: Mapping[str, ClassMoments],
        noise: Sequence[Tensor] | None = None,
    ) -> ChannelClustering:
        """Return the clusters of a group's channels for every k, with the knee and the count.

        Args:
            group: The group.
            moments: Producer's name -> class statistics of its output.
            noise: Errors of its separability, see ``group_noise``; None: unknown.
        """
        return cluster_channels(
            group_separability(group, moments),
            embedding=self.embedding,
            perplexity=self.perplexity,
            other=self.other,
            interpolation=self.interpolation,
            seed=self.seed,
            backend=self.backend,
            noise=noise,
        )

    def cluster_seen(self, group: Group, seen: ObjectActivations) -> ChannelClustering | None:
        """Cluster a group's channels; None where no object was matched, or objects of one class.

        Profiles are counted beside the noise of estimates where objects were sampled.

        Raises:
            NonFiniteImportanceError: an activation at the objects was NaN or infinite.
        """
        moments = source_moments(group, seen)
        for layer, found in moments.items():
            # A sum over objects: one activation that is not finite spoils its channel's moments.
            values = torch.cat([found.mean, found.variance], dim=1)
            check_finite(values, f"the activation of layer {layer!r}", group.name)
        if not moments or all(int((m.count > 0).sum()) < 2 for m in moments.values()):
            return None
        return self.cluster(group, moments, group_noise(group, seen) or None)


def source_moments(group: Group, seen: ObjectActivations) -> dict[str, ClassMoments]:
    """Return the class statistics of a group's sources; empty where no object was matched."""
    found = {member.layer: seen.of(member.layer) for member in group.sources}
    return {layer: moments for layer, moments in found.items() if moments is not None}


def group_separability(group: Group, moments: Mapping[str, ClassMoments]) -> Tensor:
    """Return the separability of a group's channels, (C, P): its producers' side by side."""
    matrices = []
    for member in group.sources:
        seen = moments[member.layer]
        matrix = separability_matrix(seen.mean, seen.variance, seen.count).cpu()
        rows = matrix.new_zeros(group.channels, matrix.shape[1])
        add_to_channels(rows, matrix, member)
        # Channels that can only go together count as their mean.
        matrices.append(rows / torch.bincount(member.channel)[:, None])
    return torch.cat(matrices, dim=1)


def group_noise(group: Group, seen: ObjectActivations) -> list[Tensor]:
    """Return errors of a group's separability, each (C, P): see ``count_profiles``.

    Pairs with a class of fewer than 4 objects in the sample are NaN: half of them has no variance
    that says anything. Empty where no objects were sampled.
    """
    halves = {member.layer: seen.halves_of(member.layer) for member in group.sources}
    found = []
    for parts in zip(*halves.values(), strict=True):
        sides = (dict(zip(halves, side, strict=True)) for side in zip(*parts, strict=True))
        first, second = (group_separability(group, moments) for moments in sides)
        # Errors of all objects are asked for, and are smaller than those of a sample.
        errors = estimation_noise(first, second) * seen.sampled**0.5
        enough = parts[0][0].count >= _LEAST_IN_A_HALF
        one, other = torch.triu_indices(len(enough), len(enough), offset=1)
        known = (enough[one] & enough[other]).repeat(errors.shape[1] // len(one))
        found.append(errors.masked_fill(~known, torch.nan))
    return found
