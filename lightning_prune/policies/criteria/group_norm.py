"""The group norm criterion: the channels with the largest tied weights stay."""

from typing import Literal

from torch import Tensor

from lightning_prune.graph.importance import group_importance
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.validation import validated


class GroupNorm(Criterion):
    r"""Keep the channels with the largest weights in all layers that are tied in the group.

    .. math:: I_k = \frac{1}{n} \sum_{layers} \sum_{w \in \text{channel } k} |w|^p

    over the rows of the n producers, the columns of the consumers and the scales of batch norms.

    Args:
        p: 1 or 2.

    Raises:
        ValueError: another p.

    Source: Fang, Ma, Song, Mi, Wang, 2023, DepGraph: Towards Any Structural Pruning, CVPR, arXiv
    2301.12900; torch-pruning's ``GroupMagnitudeImportance``.
    """

    @validated
    def __init__(self, p: Literal[1, 2] = 2) -> None:
        self.p = p

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the group norm of every channel, (C,)."""
        return group_importance(evidence.model, evidence.group, "norm", self.p)
