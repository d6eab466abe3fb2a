"""Checks of schedules against the epochs that a run has."""

import math

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks.trainer.comparisons import stopped_early
from lightning_prune.runs.trainer.fit_state import trains


def last_epoch(trainer: pl.Trainer, start_epoch: int, consequence: str) -> int | None:
    """Return the number of epochs of a run in which a stage acts.

    None where the run has no end, or ends before the stage starts, which is warned of.

    Args:
        trainer: The Trainer.
        start_epoch: First epoch (0-based) at which the stage acts.
        consequence: What follows where that is too late, for the warning.
    """
    batches = getattr(trainer, "fast_dev_run", False)
    if batches:
        rank_zero_warn(
            f"fast_dev_run ends after {int(batches)} batches of one epoch: what the schedule does "
            "later (masks from start_epoch on, the cut) is not tried"
        )
        return None
    last = trainer.max_epochs
    limit = f"max_epochs={last}"
    if last is None or last < 0 or start_epoch < last:
        by_steps = _epochs_of_steps(trainer)
        if by_steps is None or start_epoch < by_steps:
            return last if last is not None and last >= 0 else None
        limit = f"max_steps={trainer.max_steps}, {by_steps} epochs"
    rank_zero_warn(f"start_epoch={start_epoch} is after the last epoch ({limit}): {consequence}")
    return None


def _epochs_of_steps(trainer: pl.Trainer) -> int | None:
    """Return the number of epochs that ``max_steps`` allows; None: no limit, or nobody knows."""
    if trainer.max_steps is None or trainer.max_steps < 0:
        return None
    trainer.fit_loop.setup_data()  # as Trainer.estimated_stepping_batches does
    batches = trainer.num_training_batches
    if not math.isfinite(batches) or batches < 1:
        return None
    steps = math.ceil(batches / trainer.accumulate_grad_batches)
    return math.ceil(trainer.max_steps / steps)


def warn_of_nothing_masked(trainer: pl.Trainer, stage: str, start_epoch: int) -> None:
    """Warn at the end of training that it ended before the first mask; not where others did."""
    if trains(trainer) and stopped_early(trainer) is None:
        rank_zero_warn(
            f"{stage} masked nothing: training ended after {trainer.current_epoch} epochs, and "
            f"masks begin with start_epoch={start_epoch} (counted from 0). Train longer or let "
            "pruning start earlier"
        )


def refuse_late_start(trainer: pl.Trainer, end: str) -> None:
    """Refuse a run that starts with nothing masked where the schedule is over already."""
    raise ValueError(
        f"the schedule ends {end} and this run starts at epoch {trainer.current_epoch + 1} with "
        "nothing masked: set start_epoch and end_epoch to epochs that are still to come"
    )


def check_end(end_epoch: int | None, least: int) -> None:
    """Refuse an end before the start; None passes.

    Raises:
        ValueError: the end is below its least value.
    """
    if end_epoch is not None and end_epoch < least:
        raise ValueError(f"end_epoch={end_epoch}: pass an integer of at least {least}")
