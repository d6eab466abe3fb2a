"""Optimizers and learning-rate schedules of a fit."""

import math
from collections.abc import Callable, Sequence

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import LRSchedulerConfig

from lightning_prune.surgery.optimizer import clear_statistics
from lightning_prune.surgery.restarted_schedule import RestartedSchedule


def clear_optimizers(trainer: pl.Trainer) -> None:
    """Clear what every optimizer remembers."""
    for optimizer in trainer.optimizers:
        clear_statistics(optimizer)


def rebuild_optimizers(trainer: pl.Trainer) -> None:
    """Call ``configure_optimizers`` again."""
    trainer.strategy.setup_optimizers(trainer)


def remaining_steps(trainer: pl.Trainer) -> int | None:
    """Return the number of optimizer steps until training ends, or None where nobody knows."""
    total = trainer.estimated_stepping_batches
    # Without a known length of the loader Lightning answers max_steps, which may be -1.
    if not math.isfinite(total) or total <= trainer.global_step:
        return None
    return int(total) - trainer.global_step


def steps_per_epoch(trainer: pl.Trainer) -> float:
    """Return the number of optimizer steps of an epoch; of those so far where nobody knows."""
    if math.isfinite(trainer.num_training_batches):
        return trainer.num_training_batches / trainer.accumulate_grad_batches
    return trainer.global_step / max(1, trainer.current_epoch)


def restart_schedules(
    trainer: pl.Trainer,
    base_lrs: Sequence[Sequence[float]],
    factor: Callable[[int], float],
    done: int = 0,
) -> None:
    """Replace all schedulers by ``lr = base_lr * factor(step)``, counted from now on.

    Args:
        trainer: The running trainer.
        base_lrs: Learning rate of each group of each optimizer that a factor of 1 stands for.
        factor: Factor at the n-th optimizer step from now.
        done: Optimizer steps since the restart, where it was in an earlier fit.
    """
    schedules = [
        RestartedSchedule(optimizer, factor, rates)
        for optimizer, rates in zip(trainer.optimizers, base_lrs, strict=True)
    ]
    for schedule in schedules:
        schedule.go_to(done)
    trainer.strategy.lr_scheduler_configs = [
        LRSchedulerConfig(schedule, interval="step") for schedule in schedules
    ]
