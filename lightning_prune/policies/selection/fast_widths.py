"""Widths that are fast, not only few."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.functional.widths.faster_widths import faster_widths
from lightning_prune.graph.estimated_time import estimated_time
from lightning_prune.graph.macs import MacModel

_QUARTER = 0.25
_BELOW = 0.005


@dataclass(frozen=True)
class FastWidths:
    """Moves widths a little from where a ranking put them, to those that run fastest.

    Hardware computes several channels at once: where it takes 16, layers of 24 channels take as
    long as layers of 32. So of all widths of nearly the same MACs those with the least estimated
    time are taken; see ``graph.estimated_time``. With ``moved`` the first layers, which have many
    pixels and few channels, become narrower: faster, but less accurate (docs/log.md).

    Attributes:
        vector: Channels that the hardware computes at once: 16 for float32 with AVX-512, 8 with
            AVX2; at least 1.
        moved: Time in which a value is made or read, in MACs, at least 0.
        reach: How far a width may go from what the ranking gave, as a fraction of the layer's
            channels, in (0, 1]; one block of channels always, if it is at most a quarter of them.

    Raises:
        ValueError: an argument is out of range.
    """

    vector: int = 16
    moved: float = 0.0
    reach: float = 0.125

    def __post_init__(self) -> None:
        if self.vector < 1:
            raise ValueError(
                f"vector={self.vector}: pass the channels that the hardware computes at once, "
                "at least 1"
            )
        if not 0 <= self.moved < math.inf:
            raise ValueError(
                f"moved={self.moved}: pass the time to move a value in MACs, at least 0"
            )
        if not 0 < self.reach <= 1:
            raise ValueError(
                f"reach={self.reach} is outside (0, 1]: pass the fraction of a layer's channels "
                "that its width may go from the ranking's"
            )

    def choose(
        self,
        macs: MacModel,
        names: Sequence[str],
        widths: Sequence[int],
        around: Sequence[int],
        rungs: Sequence[Sequence[int]],
        blocks: Sequence[int],
        budget: float,
    ) -> list[int]:
        """Return the widths of least time near those that the ranking gives.

        Args:
            macs: MACs of the network.
            names: G groups.
            widths: Their widths, which fit the budget.
            around: Widths that the ranking gives, which none may leave by more than ``reach``.
            rungs: The widths that each may have.
            blocks: Channels that each keeps or loses at once.
            budget: Most MACs allowed. At least those of ``widths`` remain, or those that are half
                a percent of the dense MACs below the budget.
        """
        if not self.moved and all(block % self.vector == 0 for block in blocks):
            return list(widths)  # whole vectors anyway
        choices = []
        for name, width, middle, steps, block in zip(
            names, widths, around, rungs, blocks, strict=True
        ):
            channels = macs.channels[name]
            far = max(self.reach * channels, block if block <= _QUARTER * channels else 0)
            choices.append([w for w in steps if abs(w - middle) <= far or w == width])
        most = math.floor(budget)
        least = min(macs.cost_of(names)(widths), math.ceil(most - _BELOW * macs.total))
        time, costs = estimated_time(macs, names, self.vector, self.moved), macs.costs_of(names)
        # MACs are whole numbers, but sums of fractions.
        return faster_widths(widths, choices, time, costs, least - 0.25, most + 0.25)


# What maskers take where nothing else is said.
FAST_WIDTHS = FastWidths()
