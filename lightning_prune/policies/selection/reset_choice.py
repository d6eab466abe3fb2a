"""Chooses the channels of a layer that are reset."""

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

from lightning_prune.observe.usage_counter import usage_stats

Which = Literal["unused", "used", "all"]
"""Channels that were never used, those that were, or both."""


def reset_choice(
    counts: Tensor,
    which: Which = "unused",
    masked: Collection[int] = (),
    only_below: float | None = None,
) -> Tensor:
    """Return the channels to reset, (n,) int64, ascending.

    Args:
        counts: (C,) passes in which each channel was used.
        which: ``unused``, ``used`` or ``all``.
        masked: Channels that are held at zero: never chosen, and not counted.
        only_below: Choose none where the ratio of used channels is not below it; None: always.

    >>> reset_choice(torch.tensor([3, 0, 0, 1]), masked=[2]).tolist()
    [1]
    >>> reset_choice(torch.tensor([3, 0, 0, 1]), only_below=0.5).tolist()
    []
    """
    stats = usage_stats(counts, masked)
    if only_below is not None and stats["usage_ratio"] >= only_below:
        return torch.empty(0, dtype=torch.int64)
    used = torch.zeros(len(counts), dtype=torch.bool)
    used[stats["used_channel_indices"]] = True
    unmasked = torch.ones(len(counts), dtype=torch.bool)
    unmasked[list(masked)] = False
    chosen = {"unused": unmasked & ~used, "used": used, "all": unmasked}[which]
    return torch.nonzero(chosen).flatten()
