"""The Taylor criterion: the channels whose removal changes the loss most stay."""

from torch import Tensor

from lightning_prune.graph.importance import group_importance
from lightning_prune.policies.criteria.criterion import Criterion, Evidence


class Taylor(Criterion):
    r"""Keep the channels whose removal changes the loss most, to first order.

    .. math:: I_k = \sum_{w \in \text{channel } k} |w \cdot \partial L / \partial w|

    over the producers and consumers of the channels. The gradients are those in ``.grad``.

    Source: Molchanov, Mallya, Tyree, Frosio, Kautz, 2019, Importance Estimation for Neural
    Network Pruning, CVPR, arXiv 1906.10771; torch-pruning's ``GroupTaylorImportance``.
    """

    needs = frozenset({"gradients"})

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the first-order change of the loss of every channel, (C,)."""
        return group_importance(evidence.model, evidence.group, "taylor")
