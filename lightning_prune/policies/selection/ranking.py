"""Which groups are ranked together: those of one scope shrink at the same ratio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.isomorphic import isomorphic_sets
from lightning_prune.validation import validated

Ranking = Literal["global", "local", "isomorphic", "measured"]
"""Which groups are ranked together: all, none, or those of the same structure.

``measured``: none, and widths are those of the least loss that was measured.
"""

Scopes = Callable[[nn.Module, ChannelGroups, Sequence[str]], Sequence[int]]
"""(model, its groups, G names) -> G numbers; groups of the same number are ranked together."""


@dataclass(frozen=True)
class RankingRule:
    """How groups are ranked.

    Attributes:
        scopes: Which of them are ranked together.
        max_shift: Most blocks by which a width may leave the common ratio to meet a MAC target;
            for scopes of one group each. None: as many as it takes.
        measured: Whether the ratio says only how many MACs remain, and losses that were measured
            say at which widths (``least_loss_widths``).
    """

    scopes: Scopes
    max_shift: int | None = None
    measured: bool = False


def _all_together(_model: nn.Module, _groups: ChannelGroups, names: Sequence[str]) -> list[int]:
    return [0] * len(names)


def _each_alone(_model: nn.Module, _groups: ChannelGroups, names: Sequence[str]) -> range:
    return range(len(names))


RANKINGS: dict[Ranking, RankingRule] = {
    "global": RankingRule(_all_together),
    "local": RankingRule(_each_alone, max_shift=1),
    "isomorphic": RankingRule(isomorphic_sets),
    "measured": RankingRule(_each_alone, measured=True),
}


@validated
def ranking_rule(ranking: Ranking | RankingRule) -> RankingRule:
    """Return the rule of a name; a rule of one's own is taken as it is.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(ranking, RankingRule):
        return ranking
    return RANKINGS[ranking]
