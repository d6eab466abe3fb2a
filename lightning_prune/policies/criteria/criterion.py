"""What a criterion is: given a width, it says which channels of a group stay."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.functional.selection.moments import ClassMoments
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.non_finite_importance import check_finite


@dataclass(frozen=True)
class Evidence:
    """All that is known of a group when its channels are chosen.

    Attributes:
        model: The live model, earlier groups already masked.
        group: The group.
        moments: Producer's name -> class statistics of its output; empty where no object matched.
        clustering: Clusters of the channels for every k; None where no object matched.
    """

    model: nn.Module
    group: Group
    moments: Mapping[str, ClassMoments] = field(default_factory=dict)
    clustering: ChannelClustering | None = None


class Criterion(ABC):
    """A rule that ranks or picks the channels of a group.

    Attributes:
        uses_clusters: Whether the choice rests on clusters of channels: without them it is a
            fallback, which the report says.
        uses_gradients: Whether it needs gradients of the loss in the parameters' ``.grad`` when it
            is asked, and is told of each batch's own by ``add_batch`` before.
    """

    uses_clusters: bool = False
    uses_gradients: bool = False

    @abstractmethod
    def importance(self, evidence: Evidence) -> Tensor:
        """Return one importance per channel of the group, (C,), larger = keep."""

    def choose(self, evidence: Evidence, width: int) -> Tensor:
        """Return the ``width`` channels that stay, sorted; the most important, first on ties.

        Raises:
            NonFiniteImportanceError: an importance is NaN or infinite.
        """
        values = self.importance(evidence).double()
        check_finite(values, f"the importance by {type(self).__name__}", evidence.group.name)
        order = torch.argsort(values, descending=True, stable=True)
        return order[:width].sort()[0].cpu()

    def comparable(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        held: PruningPlan,
    ) -> dict[str, Tensor]:
        """Return importances that can be compared between groups.

        Here the importance divided by its mean over the channels that are not yet masked.

        Args:
            model: The live model.
            groups: Its channel groups.
            names: The groups that are ranked together.
            macs: MACs as a function of widths.
            held: What is masked already.

        Returns:
            Group name -> (C,) float64, larger = keep; what a masked channel gets has no meaning.

        Raises:
            NonFiniteImportanceError: an importance is NaN or infinite.
            ValueError: there is not one importance for each channel.
        """
        found = {}
        for name in names:
            values = self._finite(model, groups[name], held)
            alive = held.mask(name) if name in held.keep else torch.ones(len(values)).bool()
            mean = values[alive].mean()
            found[name] = values / mean if mean > 0 else values
        return found

    def _finite(self, model: nn.Module, group: Group, held: PruningPlan) -> Tensor:
        values = self.importance(Evidence(model, group)).detach().double().cpu()
        alive = held.keep.get(group.name, torch.arange(group.channels))
        if values.shape != (group.channels,):
            raise ValueError(
                f"{type(self).__name__} gave group {group.name!r} importances of shape "
                f"{tuple(values.shape)}: return one for each of its {group.channels} channels"
            )
        check_finite(values[alive], f"the importance by {type(self).__name__}", group.name)
        return values

    def start(self) -> None:  # noqa: B027 - a hook, not abstract
        """Forget the batches of an earlier decision."""

    def add_batch(  # noqa: B027 - a hook, not abstract
        self, model: nn.Module, groups: ChannelGroups, names: Sequence[str]
    ) -> None:
        """Take note of a batch, whose gradients are in the parameters' ``.grad``."""

    @property
    def sums(self) -> dict[str, Tensor]:
        """What ``add_batch`` summed up, to be summed over processes in place."""
        return {}

    def check(self, model: nn.Module, group: Group) -> None:  # noqa: B027 - a hook, not abstract
        """Raise ValueError, before training, where the criterion cannot judge a group."""
