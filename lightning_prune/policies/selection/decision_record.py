"""The numbers that a group's channels were chosen by, kept for whoever asks why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.functional.selection.moments import ClassMoments
from lightning_prune.functional.selection.separability import separability_matrix
from lightning_prune.graph.group import Group
from lightning_prune.policies.criteria.group_scores import weight_norm
from lightning_prune.policies.selection.clusterer import ChannelClusterer


@dataclass(frozen=True)
class SourceMoments:
    """Class statistics of what one layer shows of a group's channels.

    Attributes:
        layer: The layer.
        channel: (n,) int64, the group's channel at each position.
        moments: Of these n positions.
    """

    layer: str
    channel: Tensor
    moments: ClassMoments


@dataclass(frozen=True)
class DecisionRecord:
    """What was known of the C channels of a group when they were chosen.

    Attributes:
        criterion: Name of the criterion that was asked.
        norms: (C,) l1 norms of the filters before they were masked.
        importance: (C,) what ranked them, or chose within clusters; None: not known.
        clustering: Their clusters; None: there were none.
        sources: Class statistics of the layers that show them.
        clusterer: How they were clustered; None: they were not.
        elimination: What consumers lose at each width; None: not measured.
    """

    criterion: str
    norms: Tensor
    importance: Tensor | None = None
    clustering: ChannelClustering | None = None
    sources: tuple[SourceMoments, ...] = ()
    clusterer: ChannelClusterer | None = None
    elimination: Elimination | None = None

    def behind(self, old: "DecisionRecord | None", held: Tensor | None) -> "DecisionRecord":
        """Return the record of a further step: of channels that were gone, what was known before.

        Args:
            old: What was known before; None: not in this process, which resumed a run: NaN.
            held: (C,) bool, the channels that were not masked before the step; None: all.
        """
        if held is None:
            return self
        norms = torch.full_like(self.norms, math.nan) if old is None else old.norms
        importance = self.importance
        if importance is not None:
            known = None if old is None else old.importance
            before = torch.full_like(importance, math.nan) if known is None else known
            importance = torch.where(held, importance, before)
        return replace(self, importance=importance, norms=torch.where(held, self.norms, norms))


def group_norms(model: nn.Module, group: Group) -> Tensor:
    """Return the l1 norm of every channel's filters, (C,), as they are now."""
    return weight_norm(model, group, 1)


def source_statistics(
    group: Group, moments: Mapping[str, ClassMoments]
) -> tuple[SourceMoments, ...]:
    """Return the class statistics of a group's channels, source by source.

    Args:
        group: The group.
        moments: Source's name -> statistics of all its positions; empty: nothing was seen.
    """
    found = []
    for member in group.sources if moments else ():
        seen = moments[member.layer]
        index = member.index.to(seen.mean.device)
        values = (seen.mean[index], seen.variance[index], seen.mean_abs[index])
        own = ClassMoments(seen.count, *values)
        found.append(SourceMoments(member.layer, member.channel, own))
    return tuple(found)


def separability_of(sources: Sequence[SourceMoments], channels: int) -> Tensor:
    """Return the separability (C, P) that ``group_separability`` gives, from what was kept.

    Args:
        sources: Class statistics of the layers that show the channels.
        channels: C.
    """
    matrices = []
    for source in sources:
        seen = source.moments
        matrix = separability_matrix(seen.mean, seen.variance, seen.count).cpu()
        rows = matrix.new_zeros(channels, matrix.shape[1]).index_add_(0, source.channel, matrix)
        matrices.append(rows / torch.bincount(source.channel, minlength=channels)[:, None])
    return torch.cat(matrices, dim=1)
