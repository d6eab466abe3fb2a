"""The MAC-aware criterion: of equally important channels those that cost fewer MACs stay."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lightning_prune.arguments import MacRoot, MacWeight
from lightning_prune.functional.importance import Aggregation, mac_aware
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.validation import validated


class MacAware(Criterion):
    """Rank groups by another criterion's importance and by the MACs of their root layers.

    The MACs are compared with the least and the most among all layers that are pruned, roots and
    those tied to them.

    Inside a group the ranking is that of the other criterion; between groups that are ranked
    together channels of layers that cost many MACs go sooner. See
    ``functional.importance.mac_aware`` for the formulas.

    Args:
        criterion: The importance, divided by its mean in each group; None: ``GroupNorm``.
        aggregation: ``sum`` or ``mul``.
        alpha: Weight of the importance in ``sum``, in [0, 1].
        beta: Root of the MACs' ratio in ``mul``, more than 0: the larger, the less MACs count.

    Raises:
        ValueError: an argument is out of range.

    Source: the MAC-aware importance of sirc-torch-pruning (A. Raviv).
    """

    @validated
    def __init__(
        self,
        criterion: Criterion | None = None,
        aggregation: Aggregation = "sum",
        alpha: MacWeight = 0.9,
        beta: MacRoot = 2.0,
    ) -> None:
        self.criterion = criterion or GroupNorm()
        self.aggregation: Aggregation = aggregation
        self.alpha = alpha
        self.beta = beta
        self.needs = self.criterion.needs

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the other criterion's importance, (C,): in one group MACs change no order."""
        return self.criterion.importance(evidence)

    def choose(self, evidence: Evidence, width: int) -> Tensor:
        """Choose as the other criterion does."""
        return self.criterion.choose(evidence, width)

    def check(self, model: nn.Module, group: Group) -> None:
        """Raise ValueError where the other criterion cannot judge a group."""
        self.criterion.check(model, group)

    def start(self) -> None:
        """Clear the batches of an earlier decision."""
        self.criterion.start()

    def add_batch(self, model: nn.Module, groups: ChannelGroups, names: Sequence[str]) -> None:
        """Record a batch, as the other criterion does."""
        self.criterion.add_batch(model, groups, names)

    def output_values(self, output: Tensor) -> Tensor:
        """Return what the other criterion reads of an output."""
        return self.criterion.output_values(output)

    @property
    def sums(self) -> dict[str, Tensor]:
        """What the other criterion summed up."""
        return self.criterion.sums

    def comparable(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        held: PruningPlan,
        evidence: Mapping[str, Evidence] | None = None,
    ) -> dict[str, Tensor]:
        """Return the importances joined with the dense MACs of the root layers."""
        plain = self.criterion.comparable(model, groups, names, macs, held, evidence)
        if not plain:
            return plain
        largest = max(
            float(values[held.mask(name)].max() if name in held.keep else values.max())
            for name, values in plain.items()
        )
        # Over all layers that are pruned, those tied to a root too, as the reference has it.
        listed = [
            float(macs.layers[n])
            for name in names
            for n in groups[name].producers
            if n in macs.layers
        ]
        if not listed:
            return plain
        bounds = min(listed), max(listed)
        # A root that makes no products (a table of embeddings) counts as the cheapest layer.
        costs = {n: float(macs.layers.get(groups[n].root, bounds[0])) for n in names}
        return {
            name: mac_aware(
                values, costs[name], bounds, largest, self.aggregation, self.alpha, self.beta
            )
            for name, values in plain.items()
        }
