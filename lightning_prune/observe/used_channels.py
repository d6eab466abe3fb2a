"""The used channels of a counter as a set that can be changed."""

from collections.abc import Iterable
from typing import Any

import torch

from lightning_prune.observe.usage_counter import UsageCounter


def set_used(usage: UsageCounter, channels: Iterable[int]) -> None:
    """Mark exactly these channels as used; the counts of those that did stay.

    Raises:
        ValueError: a channel that the output does not have.
    """
    used = torch.zeros_like(usage.counts, dtype=torch.bool)
    for channel in channels:
        if not 0 <= channel < usage.channels:
            raise ValueError(f"channel {channel} is outside 0..{usage.channels - 1}")
        used[channel] = True
    usage.counts.copy_(torch.where(used, usage.counts.clamp(min=1), 0))
    if not used.any():
        usage.forwards = 0


class UsedChannels(set[int]):
    """The channels that a counter has seen used; what changes the set changes the counts.

    Copies, and results of operators such as ``-``, are sets like any other.

    Args:
        usage: The counter.

    >>> usage = UsageCounter(3)
    >>> usage.update(torch.tensor([[1.0, 0.0, 2.0]]))
    >>> UsedChannels(usage).discard(2)
    >>> UsedChannels(usage), usage.counts.tolist()
    ({0}, [1, 0, 0])
    """

    def __init__(self, usage: UsageCounter) -> None:
        super().__init__(torch.nonzero(usage.counts > 0).flatten().tolist())
        self._usage = usage

    def _write(self) -> None:
        set_used(self._usage, self)

    def add(self, channel: int, /) -> None:
        """Mark a channel as used."""
        super().add(channel)
        self._write()

    def discard(self, channel: object, /) -> None:
        """Mark a channel as never used."""
        super().discard(channel)
        self._write()

    def remove(self, channel: int, /) -> None:
        """Mark a channel as never used; KeyError where it is."""
        super().remove(channel)
        self._write()

    def pop(self) -> int:
        """Mark some channel as never used, and return it."""
        channel = super().pop()
        self._write()
        return channel

    def clear(self) -> None:
        """Clear all counts."""
        super().clear()
        self._write()

    def update(self, *others: Iterable[int]) -> None:
        """Mark channels as used."""
        super().update(*others)
        self._write()

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Mark channels as never used."""
        super().difference_update(*others)
        self._write()

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Mark all but these channels as never used."""
        super().intersection_update(*others)
        self._write()

    def symmetric_difference_update(self, other: Iterable[int], /) -> None:
        """Swap what counts as used among these channels."""
        super().symmetric_difference_update(other)
        self._write()

    def __ior__(self, other: Any) -> "UsedChannels":  # type: ignore[override,misc]
        self.update(other)
        return self

    def __isub__(self, other: Any) -> "UsedChannels":  # type: ignore[misc]
        self.difference_update(other)
        return self

    def __iand__(self, other: Any) -> "UsedChannels":  # type: ignore[misc]
        self.intersection_update(other)
        return self

    def __ixor__(self, other: Any) -> "UsedChannels":  # type: ignore[override,misc]
        self.symmetric_difference_update(other)
        return self

    def copy(self) -> set[int]:
        """Return a set like any other."""
        return set(self)

    def __repr__(self) -> str:
        return repr(set(self))

    def __reduce__(self) -> tuple[type[set[int]], tuple[list[int]]]:
        return set, (list(self),)  # copies and pickles are sets like any other
