"""What a channel penalty is: given strengths, it changes gradients."""

from abc import ABC, abstractmethod
from collections.abc import Collection

from torch import Tensor, nn

from lightning_prune.graph.group import Group
from lightning_prune.surgery.channel_weights import ChannelWeights


class ChannelPenalty(ABC):
    """A penalty on the weights of whole channels, as the gradient it adds.

    Attributes:
        batch_norms_only: Whether it acts on the scales of batch norms alone.
    """

    batch_norms_only: bool = False

    @abstractmethod
    def add_to_gradients(
        self,
        weights: ChannelWeights,
        base: Tensor,
        active: Tensor | None,
        parameters: Collection[int] | None,
    ) -> None:
        """Add the gradient of the penalty.

        Args:
            weights: The weights of the channels, of the kind that ``batch_norms_only`` asks for.
            base: (C,) strength of each channel.
            active: (C,) bool, channels that are not masked; None: all.
            parameters: ``id`` of the parameters that may be touched; None: all.
        """

    def why_ineffective(self, model: nn.Module, group: Group) -> str | None:
        """Return why the penalty does nothing to a group, or None."""
        return None
