"""Checks of schedules against the epochs that a run has."""

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn


def last_epoch(trainer: pl.Trainer, start_epoch: int, consequence: str) -> int | None:
    """Return the number of epochs of a run in which a stage acts.

    None where the run has no end, or ends before the stage starts, which is warned of.

    Args:
        trainer: The Trainer.
        start_epoch: First epoch (0-based) at which the stage acts.
        consequence: What follows where that is too late, for the warning.
    """
    last = trainer.max_epochs
    if last is None or last < 0:
        return None
    if start_epoch < last:
        return last
    rank_zero_warn(
        f"start_epoch={start_epoch} lies after the last epoch (max_epochs={last}): {consequence}"
    )
    return None


def refuse_late_start(trainer: pl.Trainer, end: str) -> None:
    """Refuse a run that starts with nothing masked where the schedule is over already."""
    raise ValueError(
        f"the schedule ends {end} and this run starts at epoch {trainer.current_epoch + 1} with "
        "nothing masked: set start_epoch and end_epoch to epochs that are still to come"
    )
