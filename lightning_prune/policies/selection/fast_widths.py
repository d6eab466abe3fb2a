"""Widths that are fast, not only few."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from lightning_prune.annotations import AtLeast, Between
from lightning_prune.functional.widths.faster_widths import faster_widths
from lightning_prune.functional.widths.width import near_widths
from lightning_prune.graph.estimated_time import estimated_time
from lightning_prune.graph.macs import MacModel
from lightning_prune.validation import validated

_QUARTER = 0.25
_BELOW = 0.005


@validated
@dataclass(frozen=True)
class FastWidths:
    """Shift widths a little from where a ranking put them, to those that run fastest.

    Hardware computes several channels at once: where it takes 16, layers of 24 channels take as
    long as layers of 32. So of all widths of nearly the same MACs those with the least estimated
    time are taken; see ``graph.estimated_time``. With a
    ``memory_cost`` the first layers, which have many pixels and few channels, become narrower:
    faster, but less accurate (docs/log.md).

    Attributes:
        vector: Channels that the hardware computes at once: 16 for float32 with AVX-512, 8 with
            AVX2; at least 1.
        memory_cost: Time in which a value is written or read, in MACs, at least 0.
        max_shift: How far a width may go from what the ranking gave, as a fraction of the
            layer's channels, in (0, 1]; one block of channels always, if it is at most a quarter
            of them.

    Raises:
        ValueError: an argument is out of range.
    """

    vector: Annotated[int, AtLeast(1, "the channels that the hardware computes at once")] = 16
    memory_cost: Annotated[float, AtLeast(0, "the time to write or read a value, in MACs")] = 0.0
    max_shift: Annotated[float, Between(0, 1, "a fraction of a layer's channels", "(]")] = 0.125

    def choose(
        self,
        macs: MacModel,
        names: Sequence[str],
        widths: Sequence[int],
        reference: Sequence[int],
        allowed: Sequence[Sequence[int]],
        blocks: Sequence[int],
        budget: float,
    ) -> list[int]:
        """Return the widths of least time near those that the ranking gives.

        Args:
            macs: MACs of the network.
            names: G groups.
            widths: Their widths, which fit the budget.
            reference: Widths that the ranking gives, which none may leave by more than
                ``max_shift``.
            allowed: The widths that each may have.
            blocks: Channels that each keeps or loses at once.
            budget: Most MACs allowed. At least those of ``widths`` remain, or those that are half
                a percent of the dense MACs below the budget.
        """
        if not self.memory_cost and all(block % self.vector == 0 for block in blocks):
            return list(widths)  # whole vectors anyway
        choices = []
        for name, width, middle, own, block in zip(
            names, widths, reference, allowed, blocks, strict=True
        ):
            channels = macs.channels[name]
            far = max(self.max_shift * channels, block if block <= _QUARTER * channels else 0)
            choices.append(near_widths(own, middle, far, width))
        most = math.floor(budget)
        least = min(macs.cost_of(names)(widths), math.ceil(most - _BELOW * macs.total))
        time = estimated_time(macs, names, self.vector, self.memory_cost)
        # MACs are whole numbers, but sums of fractions.
        return faster_widths(widths, choices, time, macs.costs_of(names), least - 0.25, most + 0.25)


# What maskers take where nothing else is said.
FAST_WIDTHS = FastWidths()
