"""The activation criterion: of every cluster of like channels, the strongest stays."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_prune.functional.selection.selection import choose_channels, heaviest_per_cluster
from lightning_prune.functional.widths.width import is_selectable
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.group_scores import (
    batch_norm_scale,
    mean_activation,
    norm_members,
    weight_norm,
)
from lightning_prune.policies.criteria.non_finite_importance import (
    NonFiniteImportanceError,
    check_finite,
)
from lightning_prune.validation import validated

Weight = Literal["l1", "l2", "activation", "bn_scale"]


class Separability(Criterion):
    r"""Keep one channel per cluster of channels that separate the classes alike.

    A given width k keeps the strongest channel of each of k clusters. Where groups are ranked
    together, or widths shrink step by step, a channel's importance is the fraction of all widths
    at which it is kept, the weight w deciding between equals:

    .. math:: I_c = \frac{1}{C} \left( \sum_{k=1}^{C} [c \in keep(k)]
        + \frac{w_c}{2 \max w} \right)

    It needs no scale of its own and is comparable between layers; where there are too few channels
    to cluster (up to 3) the weight alone decides. The k channels of largest importance are not
    quite those that k clusters keep, as clusters of different numbers need not be nested.

    Args:
        weight: What makes a channel the strongest of its cluster: ``l1`` or ``l2`` norm of the
            filter, mean |``activation``| at the objects, or ``bn_scale`` |gamma|.

    Raises:
        ValueError: an unknown weight.

    Source: Levin and Singer, 2024, GB-AFS, J. Big Data 11:79, arXiv 2309.02272, and CoSeP,
    arXiv 2505.13225. The importance over all widths is the project's own.
    """

    needs = frozenset({"clusters"})

    @validated
    def __init__(self, weight: Weight = "l1") -> None:
        self.weight = weight

    def importance(self, evidence: Evidence) -> Tensor:
        """Return how many widths keep each channel, (C,); its weight where there is no cluster."""
        weights = self.strengths(evidence)
        clustering = evidence.clustering
        if clustering is None:
            return weights
        check_finite(weights, f"the weight {self.weight!r}", evidence.group.name)
        kept = weights / (2 * weights.max().clamp(min=torch.finfo(weights.dtype).tiny))
        for clusters in clustering.clusters:
            kept[heaviest_per_cluster(clusters.labels, weights)] += 1
        return kept / len(kept)

    def comparable(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        held: PruningPlan,
        evidence: Mapping[str, Evidence] | None = None,
    ) -> dict[str, Tensor]:
        """Return the fraction of all widths that keep a channel, over its mean.

        Raises:
            NonFiniteImportanceError: a group has no clusters; no choice is made without them.
        """
        for name in names:
            if not is_selectable(groups[name].channels):
                continue
            if evidence is None or evidence[name].clustering is None:
                raise NonFiniteImportanceError(
                    f"{name!r} has no clusters to choose by: no object, or objects of one class "
                    "only, were matched"
                )
        return super().comparable(model, groups, names, macs, held, evidence)

    def strengths(self, evidence: Evidence) -> Tensor:
        """Return what makes a channel the strongest of its cluster, (C,)."""
        model, group = evidence.model, evidence.group
        if self.weight == "bn_scale":
            return batch_norm_scale(model, group)
        if self.weight == "activation" and evidence.moments:
            return mean_activation(group, evidence.moments)
        return weight_norm(model, group, 2 if self.weight == "l2" else 1)

    def choose(self, evidence: Evidence, width: int) -> Tensor:
        """Return one channel per cluster of ``width``; by weight alone without clusters."""
        if evidence.clustering is None:
            return super().choose(evidence, width)
        weights = self.strengths(evidence)
        check_finite(weights, f"the weight {self.weight!r}", evidence.group.name)
        return choose_channels(evidence.clustering, weights, width).keep

    def check(self, model: nn.Module, group: Group) -> None:
        """Raise ValueError where ``bn_scale`` finds no batch norm in a group."""
        if self.weight == "bn_scale" and not norm_members(model, group):
            raise ValueError(
                f"weight='bn_scale': group {group.name!r} has no BatchNorm with a scale; leave "
                "the layer out or choose 'l1'"
            )
