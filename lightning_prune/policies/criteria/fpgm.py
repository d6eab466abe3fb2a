"""The geometric-median criterion: the channels that the others cannot replace stay."""

from typing import Literal

from torch import Tensor

from lightning_prune.graph.importance import group_importance
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.validation import validated


class FPGM(Criterion):
    r"""Keep the channels whose filters are farthest from all the others.

    .. math:: I_k = \sum_j \lVert |w_k|^p - |w_j|^p \rVert_2

    summed over the producers and consumers of the channels.

    Args:
        p: 1 or 2, the exponent of the weights before distances are taken, as in torch-pruning.

    Raises:
        ValueError: another p.

    Source: He, Liu, Wang, Hu, Yang, 2019, Filter Pruning via Geometric Median for Deep
    Convolutional Neural Networks Acceleration, CVPR, arXiv 1811.00250; torch-pruning's
    ``FPGMImportance``.
    """

    @validated
    def __init__(self, p: Literal[1, 2] = 2) -> None:
        self.p = p

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the sum of distances of every channel, (C,)."""
        return group_importance(evidence.model, evidence.group, "fpgm", self.p)
