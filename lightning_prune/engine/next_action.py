"""What is due at an epoch: the one state machine of all that masks a model step by step."""

from dataclasses import dataclass
from typing import Protocol

from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.phase import Phase


@dataclass(frozen=True)
class Wait:
    """Nothing is due: further steps are to come."""


@dataclass(frozen=True)
class Mask:
    """Make a step.

    Attributes:
        ratio: Fraction that is masked after it; where groups are masked one by one, 1.
        groups: Groups that are decided now; empty: all of them.
    """

    ratio: float = 1.0
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retry(Mask):
    """Make a step that could not be decided before."""


@dataclass(frozen=True)
class Hold:
    """Train on with all masks."""


@dataclass(frozen=True)
class Cut:
    """The masks may be cut out."""


@dataclass(frozen=True)
class Finished:
    """Nothing will be due any more."""


Action = Wait | Mask | Hold | Cut | Finished


class Steps(Protocol):
    """When steps fall, and which."""

    def due(self, state: MaskState, epoch: int) -> Mask | None:
        """Return the step that falls on an epoch, given those that were made."""

    def complete(self, state: MaskState) -> bool:
        """Return whether all steps are made."""

    def cut_epoch(self, state: MaskState) -> int | None:
        """Return the epoch from which on complete masks may be cut out; None: they stay."""


def next_action(state: MaskState, steps: Steps, epoch: int) -> Action:
    """Return what is due at an epoch: a pure function, so that a resumed run does the same.

    At most one step is tried at an epoch, so that calling it after the step says what follows.

    Args:
        state: How far masks have come.
        steps: When steps fall.
        epoch: The epoch that starts, 0-based.
    """
    if state.phase is Phase.CUT or state.finished:
        return Finished()
    if steps.complete(state):
        cut = steps.cut_epoch(state)
        return Cut() if cut is not None and epoch >= cut else Hold()
    if epoch in (state.step_epoch, state.failed_epoch):
        return Wait()
    return steps.due(state, epoch) or Wait()
