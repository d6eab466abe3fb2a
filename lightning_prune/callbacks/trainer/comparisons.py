"""What compares a model with the best one so far, and how to restart it."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_prune.runs.trainer.callbacks_of import callbacks_of

_SKIP = "_should_skip_check"


def _early_stopping(trainer: pl.Trainer) -> list[EarlyStopping]:
    return [c for c in callbacks_of(trainer) if isinstance(c, EarlyStopping)]


def suspend_early_stopping(trainer: pl.Trainer, while_true: Callable[[], bool]) -> None:
    """Make early stopping skip its checks while a condition holds, with the state that it had.

    On the instance: thresholds, which no state could switch off, are suspended too.
    """
    for callback in _early_stopping(trainer):
        usual = partial(type(callback)._should_skip_check, callback)
        # Asked at every check: a masker may stand behind in the list.
        skips = partial(_skips, usual, while_true)
        setattr(callback, _SKIP, skips)


def _skips(usual: Callable[[Any], bool], while_true: Callable[[], bool], trainer: Any) -> bool:
    return while_true() or usual(trainer)


def release_early_stopping(trainer: pl.Trainer) -> None:
    """Make early stopping check again as ever: the callback may be used in another fit."""
    for callback in _early_stopping(trainer):
        vars(callback).pop(_SKIP, None)


def restart_comparisons(trainer: pl.Trainer) -> None:
    """Clear the best so far of early stopping and plateau schedulers, and their patience."""
    for callback in _early_stopping(trainer):
        callback.best_score = torch.tensor(math.inf if callback.mode == "min" else -math.inf)
        callback.wait_count = 0
    restart_plateaus(trainer)


def has_plateaus(trainer: pl.Trainer) -> bool:
    """Return whether any scheduler waits for a metric to improve."""
    return any(isinstance(c.scheduler, ReduceLROnPlateau) for c in trainer.lr_scheduler_configs)


def restart_plateaus(trainer: pl.Trainer) -> None:
    """Clear the best so far of plateau schedulers, and their patience; rates stay."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler._reset()


def stopped_early(trainer: pl.Trainer) -> str | None:
    """Return the monitored metric by which early stopping ended the run; None: it did not."""
    if not trainer.should_stop:
        return None
    stopped = (c for c in _early_stopping(trainer) if c.stopping_reason_message is not None)
    return next((callback.monitor for callback in stopped), None)
