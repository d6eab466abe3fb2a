"""The pruning ratio as a stateless function of the epoch."""

from dataclasses import dataclass

from lightning_prune.arguments import Count, NonNegative, PruningRatio
from lightning_prune.validation import validated


@validated
@dataclass(frozen=True)
class RatioSchedule:
    r"""Epochs (0-based) at which channels are removed, and the fraction that is gone after each.

    .. math:: r = r_{final} \cdot (i + 1) / n

    at the i-th of the n scheduled epochs ``start_epoch``, ``start_epoch + epoch_rate``, ... <
    ``end_epoch``; between them the ratio of the latest one holds.

    Attributes:
        start_epoch: First scheduled epoch.
        end_epoch: Epoch before which the schedule ends.
        epoch_rate: Epochs from one step to the next.
        final_ratio: Fraction of the channels that is gone after the last step, in (0, 1].

    Raises:
        ValueError: a number is out of range, or no epoch is in the window.

    >>> schedule = RatioSchedule(start_epoch=2, end_epoch=7, epoch_rate=2, final_ratio=0.9)
    >>> list(schedule.epochs), [round(schedule.ratio(epoch), 1) for epoch in range(8)]
    ([2, 4, 6], [0.0, 0.0, 0.3, 0.3, 0.6, 0.6, 0.9, 0.9])
    """

    start_epoch: NonNegative
    end_epoch: Count
    epoch_rate: Count = 1
    final_ratio: PruningRatio = 1.0

    def __post_init__(self) -> None:
        if self.end_epoch <= self.start_epoch:
            raise ValueError(
                f"end_epoch={self.end_epoch} leaves no epoch from start_epoch={self.start_epoch} "
                "on: pass at least start_epoch + 1, which is one step"
            )

    @property
    def epochs(self) -> range:
        """Return the scheduled epochs, in order."""
        return range(self.start_epoch, self.end_epoch, self.epoch_rate)

    def is_scheduled(self, epoch: int) -> bool:
        """Return whether channels are removed at the start of an epoch."""
        return epoch in self.epochs

    def ratio(self, epoch: int) -> float:
        """Return the ratio in force at an epoch: that of the latest scheduled epoch up to it."""
        if epoch < self.start_epoch:
            return 0.0
        steps = len(self.epochs)
        passed = min((epoch - self.start_epoch) // self.epoch_rate + 1, steps)
        return self.final_ratio * (passed / steps)
