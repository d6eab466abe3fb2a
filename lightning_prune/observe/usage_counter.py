"""Counts in how many forward passes each channel of one output was used."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from lightning_prune.functional.usage import count_used


class UsageCounter:
    """How often each channel of an output was used.

    The counts are an attribute, no buffer: DDP would overwrite those of the other ranks at every
    forward pass. They lie on the device of the output.

    Args:
        channels: Number of channels C.
        threshold: A channel is used in a forward pass where its mean magnitude exceeds this.

    Attributes:
        counts: (C,) int64, forward passes in which each channel was used.
        forwards: Forward passes that were counted.

    >>> counter = UsageCounter(2)
    >>> counter.update(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    >>> counter.stats()["used_channel_indices"], counter.stats()["usage_ratio"]
    ([0], 0.5)
    """

    def __init__(self, channels: int, threshold: float = 1e-6) -> None:
        self.threshold = threshold
        # Not on the default device: a model that is built on "meta" gets its values later.
        self.counts = torch.zeros(channels, dtype=torch.int64, device="cpu")
        self.forwards = 0

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return len(self.counts)

    def update(
        self, output: Tensor, dim: int = 1, activation: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Count one forward pass.

        Args:
            output: (..., C, ...) output.
            dim: Dimension of the channels.
            activation: Elementwise function that is still to be applied.
        """
        if torch.compiler.is_dynamo_compiling():
            # Compiled code would be compiled again for every value of `forwards`. As a decorator
            # this would import the compiler, which takes seconds, for everybody.
            torch.compiler.disable(self.update)(output, dim, activation)
            return
        if self.counts.device != output.device:
            self.counts = self.counts.to(output.device)
        if count_used(self.counts, output, self.threshold, dim, activation):
            self.forwards += 1

    def clear(self) -> None:
        """Clear all counts."""
        self.counts.zero_()
        self.forwards = 0

    def keep(self, index: Tensor) -> None:
        """Keep the counts of some channels, in this order: the others were cut."""
        self.counts = self.counts.index_select(0, index.to(self.counts.device))

    def stats(self) -> dict[str, Any]:
        """Return ``usage_stats`` of the counts."""
        return usage_stats(self.counts)


def usage_stats(counts: Tensor, masked: Collection[int] = ()) -> dict[str, Any]:
    """Summarize the counts of a layer.

    Args:
        counts: (C,) forward passes in which each channel was used.
        masked: Channels that are held at zero: they count as neither used nor unused.

    Returns:
        ``total_channels``, ``used_channels`` (how many were used at least once), ``usage_ratio``
        (used / total; 0 without channels), ``used_channel_indices`` (list) and ``usage_count``
        (the counts, a copy on the CPU).

    >>> stats = usage_stats(torch.tensor([4, 0, 2]))
    >>> stats["used_channels"], round(stats["usage_ratio"], 3), stats["used_channel_indices"]
    (2, 0.667, [0, 2])
    """
    count = counts.to("cpu", copy=True)
    used = set(torch.nonzero(count > 0).flatten().tolist()) - set(masked)
    total = len(count) - len(set(masked))
    return {
        "total_channels": total,
        "used_channels": len(used),
        "usage_ratio": len(used) / total if total else 0.0,
        "used_channel_indices": sorted(used),
        "usage_count": count,
    }
