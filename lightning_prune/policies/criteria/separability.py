"""The activation criterion: of every cluster of like channels, the strongest stays."""

from typing import Literal, get_args

from torch import Tensor, nn

from lightning_prune.functional.selection.selection import choose_channels
from lightning_prune.graph.group import Group
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.group_scores import (
    batch_norm_scale,
    mean_activation,
    norm_members,
    weight_norm,
)
from lightning_prune.policies.criteria.non_finite_importance import check_finite

Weight = Literal["l1", "l2", "activation", "bn_scale"]


class Separability(Criterion):
    """Keep one channel per cluster of channels that separate the classes alike.

    Args:
        weight: What makes a channel the strongest of its cluster: ``l1`` or ``l2`` norm of the
            filter, mean |``activation``| at the objects, or ``bn_scale`` |gamma|.

    Raises:
        ValueError: an unknown weight.

    Source: Levin and Singer, 2024, GB-AFS, J. Big Data 11:79, arXiv 2309.02272, and CoSeP,
    arXiv 2505.13225.
    """

    uses_clusters = True

    def __init__(self, weight: Weight = "l1") -> None:
        if weight not in get_args(Weight):
            raise ValueError(f"weight={weight!r}: allowed are {', '.join(get_args(Weight))}")
        self.weight = weight

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the weight of every channel, (C,)."""
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
        weights = self.importance(evidence)
        check_finite(weights, f"the weight {self.weight!r}", evidence.group.name)
        return choose_channels(evidence.clustering, weights, width).keep

    def check(self, model: nn.Module, group: Group) -> None:
        """Raise ValueError where ``bn_scale`` finds no batch norm in a group."""
        if self.weight == "bn_scale" and not norm_members(model, group):
            raise ValueError(
                f"weight='bn_scale': group {group.name!r} has no BatchNorm with a scale; leave "
                "the layer out or choose 'l1'"
            )
