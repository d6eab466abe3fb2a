"""What a criterion is: given a width, it says which channels of a group stay."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_prune.functional.clustering import ChannelClustering
from lightning_prune.functional.moments import ClassMoments
from lightning_prune.graph.group import Group


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
    """

    uses_clusters: bool = False

    @abstractmethod
    def importance(self, evidence: Evidence) -> Tensor:
        """Return one importance per channel of the group, (C,), larger = keep."""

    def choose(self, evidence: Evidence, width: int) -> Tensor:
        """Return the ``width`` channels that stay, sorted; the most important, first on ties."""
        order = torch.argsort(self.importance(evidence).double(), descending=True, stable=True)
        return order[:width].sort()[0].cpu()

    def check(self, model: nn.Module, group: Group) -> None:  # noqa: B027 - a hook, not abstract
        """Raise ValueError, before training, where the criterion cannot judge a group."""
