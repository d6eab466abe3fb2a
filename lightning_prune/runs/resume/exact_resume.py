"""A resumed run that ends as the uninterrupted one would have."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.functional.random_states import random_states, restore_random_states
from lightning_prune.runs.checkpoint.kept_files import follow_files
from lightning_prune.runs.checkpoint.readable_files import check_hyper_parameters
from lightning_prune.runs.resume.inexact_callbacks import warn_of_inexact
from lightning_prune.runs.resume.metric_states import restore_metric_states
from lightning_prune.runs.resume.own_lists import empty_lists, grown_lists, warn_of_lists
from lightning_prune.runs.trainer.gathered_epoch import (
    add_means,
    drop_means,
    know_metrics,
    known_metrics,
    open_gradients,
    open_metrics,
    restore_gradients,
    running_means,
)
from lightning_prune.runs.trainer.loop_positions import (
    finish_batch,
    forget_finished,
    go_to_next_batch,
    leave_epoch,
    loader_states,
    moment,
    pending_plateaus,
    pending_row,
    repeat_saves,
    restart_loaders,
    resume_is_over,
    step_plateaus,
)
from lightning_prune.runs.trainer.ranks import gather

_KEY = "exact_resume"


class ExactResume(Callback):
    """Keep in every checkpoint what Lightning leaves out, so that resuming changes nothing.

    Lightning restores weights, optimizers, schedules, callbacks and counters. This callback adds:

    - the random states of torch, NumPy and Python, and of the CUDA device, of every process
      (dropout, random data);
    - the place of the training loaders, also where the optimizer's schedule asked for the number of
      steps before the place was known;
    - the means that ``self.log`` and torchmetrics have gathered in an epoch so far, logged or not,
      in the module or in callbacks, and the latest values that callbacks monitor;
    - a validation within the epoch that is due right behind the checkpoint, and gradients that
      wait for further batches (on one device);
    - the files of ``ModelCheckpoint`` callbacks and their scores where the folder of the run was
      moved or copied;
    - the steps of plateau schedulers, and the files of further ``ModelCheckpoint`` callbacks, that
      come right after the checkpoint;
    - the place in the files of loggers that have ``state_dict`` and ``load_state_dict``, such as
      ``AppendingCsvLogger``: no row is lost, none is there twice.

    On one device, or under DDP, a resumed run then equals the uninterrupted one bit by bit, at the
    ends of epochs with any loader, and within an epoch with loaders that have ``state_dict`` and
    ``load_state_dict``; for others Lightning warns. Put it behind the pruning callbacks, and before
    callbacks that read the means of an epoch in ``on_train_epoch_end``.
    """

    def __init__(self) -> None:
        self._found: dict[str, Any] | None = None
        self._loaders: list[Any] | None = None
        self._means: dict[str, Any] = {}
        self._made: list[str] = []
        self._empty: set[str] = set()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse or name, before the first batch, what a resume could not restore.

        Raises:
            ValueError: hyper-parameters that no checkpoint can hold.
        """
        if stage == "fit":
            check_hyper_parameters(trainer, pl_module)
            warn_of_inexact(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out."""
        if not trainer.training and not trainer.validating:
            return
        if self._means:  # what has not been logged since the last resume must outlive this one
            add_means(trainer, self._means, all_of_them=False)
        own = {
            "random": random_states(pl_module.device),
            "means": self._means | running_means(trainer),
            "metrics": open_metrics(trainer),
            "gradients": open_gradients(trainer),
        }
        row = pending_row(trainer)
        hook = "on_train_epoch_end" if moment(trainer) == "epoch end" else None
        ahead = finish_batch(trainer, checkpoint)
        checkpoint[_KEY] = {
            "hook": "on_validation_end" if trainer.validating else hook,
            "leave_epoch": ahead == "end of the epoch",
            "next_batch": ahead == "next batch",
            "lists": grown_lists(pl_module, self._empty),
            "plateaus": pending_plateaus(trainer, ahead),
            "processes": gather(trainer, own),
            "monitored": known_metrics(trainer),
            "loggers": [
                {"kind": type(logger).__qualname__, "state": logger.state_dict(), "row": row}
                for logger in trainer.loggers
                if hasattr(logger, "state_dict")
            ],
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find what was added; a checkpoint of a run without this callback holds nothing."""
        if trainer.state.fn == "fit":
            follow_files(trainer, checkpoint)
            self._found = checkpoint.get(_KEY)
            self._loaders = loader_states(checkpoint)
            if self._found is None:
                rank_zero_warn(
                    "the checkpoint was written without ExactResume: random numbers and the means "
                    "of an unfinished epoch start again"
                )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what loggers wrote after the checkpoint, also where training is complete."""
        self._empty = empty_lists(pl_module)
        if self._found is not None and trainer.is_global_zero:
            self._rewind_loggers(trainer, list(self._found["loggers"]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore everything, at the last moment before the first batch is drawn."""
        found, self._found = self._found, None
        loaders, self._loaders = self._loaders, None
        own = None if found is None else self._of_this_process(trainer, found["processes"])
        if own is not None:
            self._means = dict(own["means"])
            restore_metric_states(trainer, own["metrics"])
            restore_gradients(trainer, own.get("gradients"))
            restore_random_states(own["random"], pl_module.device)
        if loaders is not None:  # their place needs nothing of this callback's
            restart_loaders(trainer, loaders)
        if found is None:
            return
        know_metrics(trainer, found["monitored"])
        warn_of_lists(found.get("lists", ()))
        forget_finished(trainer)
        if found.get("next_batch"):
            go_to_next_batch(trainer)
        if found["leave_epoch"]:
            leave_epoch(trainer)
        if found["hook"] is not None:
            repeat_saves(trainer, found["hook"])
        if found["plateaus"] is not None:
            step_plateaus(trainer, found["plateaus"])

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the files of a run that had nothing left to train."""
        found, self._found = self._found, None
        if found is not None:
            know_metrics(trainer, found["monitored"])
            if found["hook"] is not None:
                repeat_saves(trainer, found["hook"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what was added for the epoch before."""
        self._empty = empty_lists(pl_module)
        drop_means(trainer, self._made)
        self._made = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the means of before to those that have begun again."""
        if self._means:
            add_means(trainer, self._means, all_of_them=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add what was not logged again since."""
        self.complete_means(trainer)
        resume_is_over(trainer)

    def complete_means(self, trainer: pl.Trainer) -> None:
        """Add what was not logged again since, for those who read an epoch's metrics at its end."""
        if self._means:
            self._made += add_means(trainer, self._means, all_of_them=True)

    @staticmethod
    def _of_this_process(
        trainer: pl.Trainer, processes: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        if len(processes) == trainer.world_size:
            return processes[trainer.global_rank]
        rank_zero_warn(
            f"the checkpoint was written by {len(processes)} processes and is resumed by "
            f"{trainer.world_size}: random numbers and the means of an unfinished epoch start again"
        )
        return None

    @staticmethod
    def _rewind_loggers(trainer: pl.Trainer, states: list[dict[str, Any]]) -> None:
        able = [logger for logger in trainer.loggers if hasattr(logger, "load_state_dict")]
        for logger in able:
            kind = type(logger).__qualname__
            state = next((state for state in states if state["kind"] == kind), None)
            if state is None:
                continue
            states.remove(state)
            if logger.load_state_dict(state["state"]) and state["row"] is not None:
                logger.log_metrics(state["row"]["metrics"], state["row"]["step"])
