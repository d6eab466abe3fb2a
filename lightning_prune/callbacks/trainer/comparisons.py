"""What compares a model with the best one so far, and how to let it begin anew."""

import math

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_prune.runs.trainer.callbacks_of import callbacks_of

_SKIP = "_should_skip_check"


def _early_stopping(trainer: pl.Trainer) -> list[EarlyStopping]:
    return [c for c in callbacks_of(trainer) if isinstance(c, EarlyStopping)]


def suspend_comparisons(trainer: pl.Trainer, suspended: bool) -> None:
    """Let early stopping look away, or look again, with the state that it had; idempotent.

    Plateau schedulers begin anew while it looks away: called before each of their steps, no
    patience runs out.
    """
    for callback in _early_stopping(trainer):
        if suspended:
            # On the instance: thresholds, which no state could switch off, are suspended too.
            setattr(callback, _SKIP, lambda _: True)
        else:
            vars(callback).pop(_SKIP, None)
    if suspended:
        restart_plateaus(trainer)


def restart_comparisons(trainer: pl.Trainer) -> None:
    """Let early stopping and plateau schedulers forget the best so far, and their patience."""
    for callback in _early_stopping(trainer):
        callback.best_score = torch.tensor(math.inf if callback.mode == "min" else -math.inf)
        callback.wait_count = 0
    restart_plateaus(trainer)


def restart_plateaus(trainer: pl.Trainer) -> None:
    """Let plateau schedulers forget the best so far, and their patience; rates stay."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler._reset()


def stopped_early(trainer: pl.Trainer) -> str | None:
    """Return the monitored metric by which early stopping ended the run; None: it did not."""
    if not trainer.should_stop:
        return None
    stopped = (c for c in _early_stopping(trainer) if c.stopping_reason_message is not None)
    return next((callback.monitor for callback in stopped), None)
