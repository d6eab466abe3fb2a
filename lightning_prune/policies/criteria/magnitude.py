"""The magnitude baseline: the channels with the largest filters stay."""

from typing import Literal

from torch import Tensor

from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.group_scores import weight_norm
from lightning_prune.validation import validated


class Magnitude(Criterion):
    """Keep the channels whose filters have the largest norm.

    Args:
        p: 1 or 2, the norm.

    Raises:
        ValueError: another p.

    Source: Li, Kadav, Durdanovic, Samet, Graf, 2017, Pruning Filters for Efficient ConvNets,
    ICLR, arXiv 1608.08710.
    """

    @validated
    def __init__(self, p: Literal[1, 2] = 1) -> None:
        self.p = p

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the norm of every channel's filters, (C,)."""
        return weight_norm(evidence.model, evidence.group, self.p)
