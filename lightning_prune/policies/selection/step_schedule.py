"""When the steps of a gradual mask fall: a pure function of the epoch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StepSchedule:
    """Epochs (0-based) at which groups are masked one step after the other, and then cut.

    Attributes:
        start_epoch: Epoch at whose start the first step falls.
        groups_per_step: Groups masked at once; None: all of them in one step.
        epochs_per_step: Epochs of training between two steps.
        hold_epochs: Epochs of training with all masks before the cut.

    >>> schedule = StepSchedule(start_epoch=2, groups_per_step=2, epochs_per_step=3, hold_epochs=1)
    >>> [schedule.due(epoch, 5) for epoch in (1, 2, 4, 5, 8, 20)], schedule.cut_epoch(5)
    ([0, 2, 2, 4, 5, 5], 9)
    """

    start_epoch: int
    groups_per_step: int | None
    epochs_per_step: int
    hold_epochs: int

    def steps(self, groups: int) -> int:
        """Return the number of steps in which this many groups are masked."""
        return 1 if self.groups_per_step is None else math.ceil(groups / self.groups_per_step)

    def due(self, epoch: int, groups: int) -> int:
        """Return how many of the groups are masked from the start of an epoch on."""
        if epoch < self.start_epoch:
            return 0
        if self.groups_per_step is None:
            return groups
        steps = (epoch - self.start_epoch) // self.epochs_per_step + 1
        return min(groups, steps * self.groups_per_step)

    def cut_epoch(self, groups: int) -> int:
        """Return the epoch from whose start on the masks may be cut out."""
        further = (self.steps(groups) - 1) * self.epochs_per_step
        return self.start_epoch + further + self.hold_epochs

    def contradiction(self, max_epochs: int, groups: int) -> str | None:
        """Return why the cut model would not be trained within so many epochs, or None."""
        cut = self.cut_epoch(groups)
        if cut < max_epochs:
            return None
        return (
            f"the cut would fall on epoch {cut + 1} but max_epochs={max_epochs}: "
            f"start_epoch={self.start_epoch} + {self.steps(groups) - 1} further steps x "
            f"epochs_per_step={self.epochs_per_step} + hold_epochs={self.hold_epochs} must be "
            "less than max_epochs, so that the cut model is trained"
        )
