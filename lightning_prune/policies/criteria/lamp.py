"""The LAMP criterion: a channel's fraction of those that are as large or larger."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.importance import group_importance
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.validation import validated


class LAMP(Criterion):
    r"""Keep the channels with the largest layer-adaptive score.

    .. math:: I_k = s_k / \sum_{s_j \ge s_k} s_j

    with the group norm s. In each group the ranking is that of the group norm; between groups the
    score says how much of what is left goes with a channel.

    Args:
        p: 1 or 2, the exponent of the group norm.

    Raises:
        ValueError: another p.

    Source: Lee, Park, Mo, Ahn, Shin, 2021, Layer-adaptive Sparsity for the Magnitude-based
    Pruning, ICLR, arXiv 2010.07611; torch-pruning's ``LAMPImportance``.
    """

    @validated
    def __init__(self, p: Literal[1, 2] = 2) -> None:
        self.p = p

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the score of every channel, (C,)."""
        return group_importance(evidence.model, evidence.group, "lamp", self.p)

    def comparable(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        held: PruningPlan,
        evidence: Mapping[str, Evidence] | None = None,
    ) -> dict[str, Tensor]:
        """Return the scores as they are: LAMP is made to be compared between layers."""
        return self._finite(model, groups, names, held, evidence)
