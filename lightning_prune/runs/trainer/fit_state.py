"""How far a fit is, and who saves its checkpoints."""

from collections.abc import Iterator

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus

from lightning_prune.runs.trainer.callbacks_of import callbacks_of


def put_first(trainer: pl.Trainer, callback: Callback) -> None:
    """Add a callback in front of the others; from ``setup``, which it does not see itself."""
    # A new list: Lightning is walking through the old one.
    setattr(trainer, "callbacks", [callback, *callbacks_of(trainer)])  # noqa: B010 - no such stub


def is_fitting(trainer: pl.Trainer) -> bool:
    """Return whether a fit is under way: not its sanity check, and not what follows an error."""
    running = trainer.state.status == TrainerStatus.RUNNING
    return running and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def trainer_of(pl_module: pl.LightningModule) -> pl.Trainer | None:
    """Return the Trainer of a module, or None where it has none."""
    return pl_module._trainer


def is_in_a_fit(pl_module: pl.LightningModule) -> bool:
    """Return whether a module has a Trainer that fits: begins to, trains or validates."""
    trainer = trainer_of(pl_module)
    return trainer is not None and trainer.state.fn == TrainerFn.FITTING


def skips_steps(trainer: pl.Trainer) -> bool:
    """Return whether a gradient scaler leaves out the steps with NaN or infinite gradients."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def trains(trainer: pl.Trainer) -> bool:
    """Return whether a fit goes through any batch: a dry run does not."""
    return trainer.fit_loop.max_batches != 0


def checkpoint_callbacks(trainer: pl.Trainer) -> Iterator[ModelCheckpoint]:
    """Yield the callbacks that save checkpoints and know which one is best."""
    return (c for c in callbacks_of(trainer) if isinstance(c, ModelCheckpoint))


def save_nothing_on_exception(trainer: pl.Trainer) -> None:
    """Make ``ModelCheckpoint(save_on_exception=True)`` keep the files that are there."""
    for callback in checkpoint_callbacks(trainer):
        # What it takes for "saved at this step already", until the next step.
        callback._last_global_step_saved = trainer.global_step
