"""The growing penalty on group norms: weak channels are penalized more strongly."""

from collections.abc import Collection
from typing import Annotated

from torch import Tensor

from lightning_prune.annotations import Between
from lightning_prune.functional.penalty import growing_strength
from lightning_prune.policies.penalties.channel_penalty import ChannelPenalty
from lightning_prune.surgery.channel_weights import ChannelWeights
from lightning_prune.validation import validated


class GroupNormPenalty(ChannelPenalty):
    r"""Shrink every weight of a channel in proportion to itself, weak channels more.

    .. math:: g \mathrel{+}= \lambda s_k w, \quad
        s_k = 2^{\alpha (I_{max} - I_k) / (I_{max} - I_{min})}

    on the rows, columns and norm scales of channel k, with its norm :math:`I_k` (see
    ``group_norms``) and the strength :math:`\lambda`.

    Args:
        alpha: The weakest channel of a group is penalized 2 to this power times as strongly as the
            strongest; >= 0.

    Raises:
        ValueError: alpha is negative or not finite.

    Source: Fang, Ma, Song, Mi, Wang, 2023, DepGraph: Towards Any Structural Pruning, CVPR,
    arXiv 2301.12900.
    """

    @validated
    def __init__(
        self, alpha: Annotated[float, Between(0, 100, "for example 4", "[)")] = 4.0
    ) -> None:
        self.alpha = alpha

    def add_to_gradients(
        self,
        weights: ChannelWeights,
        base: Tensor,
        active: Tensor | None,
        parameters: Collection[int] | None,
    ) -> None:
        """Add the gradient of the penalty."""
        strength = growing_strength(weights.norms(), self.alpha, weights.group, active)
        weights.add_to_gradients(base * strength, parameters)
