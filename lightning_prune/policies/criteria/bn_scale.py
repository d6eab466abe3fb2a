"""The gamma baseline: the channels with the largest batch-norm scale stay."""

from torch import Tensor, nn

from lightning_prune.graph.group import Group
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.group_scores import batch_norm_scale, norm_members


class BNScale(Criterion):
    """Keep the channels whose batch norms have the largest |gamma|.

    Source: Liu, Li, Shen, Huang, Yan, Zhang, 2017, Learning Efficient Convolutional Networks
    through Network Slimming, ICCV, arXiv 1708.06519.
    """

    def importance(self, evidence: Evidence) -> Tensor:
        """Return |gamma| of every channel, (C,)."""
        return batch_norm_scale(evidence.model, evidence.group)

    def check(self, model: nn.Module, group: Group) -> None:
        """Raise ValueError where a group has no batch norm."""
        if not norm_members(model, group):
            raise ValueError(
                f"criterion bn_scale: group {group.name!r} has no BatchNorm with a scale; leave "
                "the layer out or choose criterion=magnitude"
            )
