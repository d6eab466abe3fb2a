"""What networks of other widths cost, in whatever unit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lightning_prune.graph.macs import MacModel, Values


class CostModel(Protocol):
    """The cost of a network as a function of its groups' widths: MACs, or milliseconds."""

    @property
    def total(self) -> float:
        """Return what the dense network costs."""

    def remaining(self, widths: Mapping[str, int]) -> float:
        """Return what it costs when groups keep these many channels (others all)."""

    def cost_of(self, names: Sequence[str]) -> Callable[[Sequence[int]], float]:
        """Return ``remaining`` as a fast function of the widths of some groups, in this order."""

    def costs_of(self, names: Sequence[str]) -> Callable[[Values], Values]:
        """Return the cost as a function of many choices of widths at once, (N, G) -> (N,)."""


def target_words(cost: CostModel) -> tuple[str, str]:
    """Return the name of the setting that limits a cost, and what it counts."""
    return ("mac_target", "MACs") if isinstance(cost, MacModel) else ("latency_target", "time")
