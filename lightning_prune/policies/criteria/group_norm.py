"""The group norm criterion: the channels with the largest tied weights stay."""

from torch import Tensor

from lightning_prune.graph.importance import group_importance
from lightning_prune.policies.criteria.criterion import Criterion, Evidence


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

    def __init__(self, p: int = 2) -> None:
        if p not in (1, 2):
            raise ValueError(f"p={p}: pass 1 (sum of magnitudes) or 2 (sum of squares)")
        self.p = p

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the group norm of every channel, (C,)."""
        return group_importance(evidence.model, evidence.group, "norm", self.p)
