"""Callbacks of Lightning whose state is not in its checkpoints, or not all of it."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.runs.trainer.callbacks_of import callbacks_of

_WAY = (
    "resume from files that were written at the end of an epoch: "
    "ModelCheckpoint(save_on_train_epoch_end=True)"
)
_SEARCHES = (
    "it searches again when the run is resumed, and what it finds replaces what was restored"
)
_WHY: dict[type, str] = {
    StochasticWeightAveraging: (
        "Lightning does not keep all of its state: within an epoch neither its averaging nor its "
        f"learning rates continue where they were; {_WAY}"
    ),
    GradientAccumulationScheduler: (
        "Lightning does not keep its state: a run that is resumed within an epoch accumulates "
        f"nothing until the next one begins; {_WAY}"
    ),
    LearningRateFinder: _SEARCHES,
    BatchSizeFinder: _SEARCHES,
}


def warn_of_inexact(trainer: pl.Trainer) -> None:
    """Return the callbacks with which a resumed run may differ from the uninterrupted one."""
    for callback in callbacks_of(trainer):
        for kind, why in _WHY.items():
            if isinstance(callback, kind):
                rank_zero_warn(f"{type(callback).__name__}: {why}")
