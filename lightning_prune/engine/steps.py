"""When steps fall: by a ratio that rises, or group by group."""

from dataclasses import dataclass

from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.next_action import Mask, Retry
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.policies.selection.step_schedule import StepSchedule


@dataclass(frozen=True)
class RatioSteps:
    """Steps at which the ratio of all that is masked rises.

    Attributes:
        schedule: Epochs and ratios.
        names: What is masked: groups, or layers.
        hold_epochs: Epochs of training with all masks before the cut; None: nothing is cut.
        catch_up: Whether a step whose epoch was missed is made up for; else it is left out.
        gradually: False: every step has the whole ratio.
        closing: Whether there is one more step at the schedule's ``end_epoch``.

    >>> steps = RatioSteps(RatioSchedule(2, 6, 2, 0.8), ("stem",), hold_epochs=1)
    >>> steps.due(MaskState(), 1), steps.due(MaskState(), 2).ratio
    (None, 0.4)
    >>> done = MaskState(step_epoch=4)
    >>> steps.complete(done), steps.cut_epoch(done)
    (True, 5)
    """

    schedule: RatioSchedule
    names: tuple[str, ...]
    hold_epochs: int | None = None
    catch_up: bool = False
    gradually: bool = True
    closing: bool = False

    @property
    def epochs(self) -> tuple[int, ...]:
        """Return the epochs at which steps fall."""
        return (*self.schedule.epochs, *((self.schedule.end_epoch,) if self.closing else ()))

    def ratio(self, epoch: int) -> float:
        """Return the ratio in force from an epoch on."""
        if self.gradually or epoch < self.schedule.start_epoch:
            return self.schedule.ratio(epoch)
        return self.schedule.final_ratio

    def due(self, state: MaskState, epoch: int) -> Mask | None:
        """Return the step that falls on an epoch, or that is made up for."""
        if not self._left(state):
            return None
        # Where the last step could not be decided, every further epoch tries again.
        late = state.failed_epoch is not None and epoch > self.epochs[-1]
        falls = epoch in self.epochs
        if self.catch_up:
            falls = self._latest(epoch) > self._latest(state.step_epoch)
        if not (falls or late):
            return None
        kind = Mask if state.failed_epoch is None else Retry
        return kind(self.ratio(epoch))

    def complete(self, state: MaskState) -> bool:
        """Return whether the target is met, the last step made, or nothing is left to mask."""
        if state.step_epoch is None:
            return False
        return state.met or state.step_epoch >= self.epochs[-1] or not self._left(state)

    def cut_epoch(self, state: MaskState) -> int | None:
        """Return the epoch from which on the masks may be cut out."""
        if state.step_epoch is None or self.hold_epochs is None:
            return None
        return state.step_epoch + self.hold_epochs

    def late_cut(self, max_epochs: int) -> str | None:
        """Return when the cut is, if the cut model would not be trained within so many epochs."""
        last, hold = self.epochs[-1], self.hold_epochs or 0
        if last + hold < max_epochs:
            return None
        return (
            f"the last step falls on epoch {last + 1} and the cut hold_epochs={hold} later, on "
            f"epoch {last + hold + 1}, but max_epochs={max_epochs}"
        )

    def _left(self, state: MaskState) -> bool:
        return any(name not in state.freed for name in self.names)

    def _latest(self, epoch: int | None) -> int:
        """Return the latest epoch of a step up to another; -1: none."""
        return max((e for e in self.epochs if epoch is not None and e <= epoch), default=-1)


@dataclass(frozen=True)
class GroupSteps:
    """Steps at which the next groups are masked.

    Attributes:
        schedule: How many groups are masked at an epoch, and how long they are held.
        names: The groups, front to back.

    >>> steps = GroupSteps(StepSchedule(1, 2, 1, 3), ("a", "b", "c"))
    >>> steps.due(MaskState(), 1).groups, steps.due(MaskState(), 2).groups
    (('a', 'b'), ('a', 'b', 'c'))
    """

    schedule: StepSchedule
    names: tuple[str, ...]

    def due(self, state: MaskState, epoch: int) -> Mask | None:
        """Return the groups that are due at an epoch and not decided."""
        groups = self.names[len(state.decisions) : self.schedule.due(epoch, len(self.names))]
        kind = Mask if state.failed_epoch is None else Retry
        return kind(groups=groups) if groups else None

    def complete(self, state: MaskState) -> bool:
        """Return whether all groups are decided."""
        return len(state.decisions) == len(self.names)

    def cut_epoch(self, state: MaskState) -> int:
        """Return the epoch from which on the masks may be cut out."""
        cut = self.schedule.cut_epoch(len(self.names))
        if state.step_epoch is None or state.failed_epoch is None:
            return cut
        # A step that was tried again gets its epochs of training with all masks too.
        return max(cut, state.step_epoch + self.schedule.hold_epochs)
