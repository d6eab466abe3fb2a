"""What exact resuming needs of Lightning's private parts, and nothing else."""

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.runs.trainer.fit_state import checkpoint_callbacks

Moment = Literal["batch end", "epoch end", "between"]
Ahead = Literal["nothing", "validation", "end of the epoch", "next batch"]


def moment(trainer: pl.Trainer) -> Moment:
    """Return where in the training loop the Trainer stands; validation is in between."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    epochs: Any = trainer.fit_loop.epoch_progress.total
    if batches.processed == batches.completed + 1:
        return "batch end"
    return "epoch end" if epochs.processed == epochs.completed + 1 else "between"


def repeats_epoch_end(trainer: pl.Trainer) -> bool:
    """Return whether a run resumed from the end of an epoch goes through that end once more."""
    return trainer.max_steps != -1


def finish_batch(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> Ahead:
    """Make a checkpoint resume with what comes next in the loop, of whatever moment it is.

    Of a checkpoint from the very end of an epoch Lightning would continue with the next epoch,
    without the validation and the end of this one, and without the start of the next; with
    ``max_steps`` it would count the epoch twice. Of one from before a validation within an epoch
    it would leave out the validation.

    Returns:
        What is ahead of the file that a resumed run has to see to.
    """
    loops = checkpoint["loops"]["fit_loop"]
    batches, now = trainer.fit_loop.epoch_loop.batch_progress, moment(trainer)
    if now == "between" and _has_validated(trainer):
        # A run that was stopped behind a validation would count the batch twice.
        _complete(loops, -1)
        stepped = not trainer.fit_loop._should_accumulate()
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= stepped
        return "next batch"
    twice = now == "epoch end" and repeats_epoch_end(trainer)
    validates = now == "batch end" and _validation_is_due(trainer)
    if not (twice or validates or (now == "batch end" and batches.is_last_batch)):
        return "nothing"
    validates = validates or (twice and _validation_is_due(trainer))
    if twice:
        for part in ("total", "current"):
            loops["epoch_progress"][part]["processed"] -= 1
    else:
        _complete(loops, 1)
        # As if the first batch of the validation were on its way: Lightning then validates.
        counts = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        none = dict.fromkeys(counts, 0)
        loops["epoch_loop.val_loop.batch_progress"].update(total=counts, current=none)
    # Lightning counts the step as logged where it has validated, and only there.
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] += (not validates) - twice
    return "validation" if validates else "end of the epoch"


def _complete(loops: dict[str, Any], batches: int) -> None:
    for part in ("total", "current"):
        loops["epoch_loop.batch_progress"][part]["completed"] += batches


def _has_validated(trainer: pl.Trainer) -> bool:
    """Return whether the batch behind which the Trainer stands, within an epoch, was validated."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    behind = 0 < batches.current.ready == batches.current.completed and not batches.is_last_batch
    return behind and not trainer.validating and _validation_is_due(trainer)


def _validation_is_due(trainer: pl.Trainer) -> bool:
    """Return whether a resumed run validates at this batch, from behind which it was resumed."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    timed = getattr(trainer, "_val_check_time_interval", None) is not None
    if fetcher is None or timed:
        return False  # a resumed run counts the time from its own start
    stops, trainer.should_stop = trainer.should_stop, False
    try:
        return bool(loop._should_check_val_fx(fetcher))
    finally:
        trainer.should_stop = stops


def go_to_next_batch(trainer: pl.Trainer) -> None:
    """Make a run that was stopped behind a validation begin with the next batch.

    Lightning would make the iterators of the validation's loaders, with random numbers that the
    uninterrupted run did not draw, to count their batches, which the checkpoint has counted.
    """
    loop: Any = trainer.fit_loop.epoch_loop.val_loop
    name = "increment_progress_to_evaluation_end"
    setattr(loop, name, lambda: vars(loop).pop(name))


def forget_finished(trainer: pl.Trainer) -> None:
    """Remove from the counters what ``finish_batch`` put in, once Lightning has acted on it."""
    counted: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    total, current = counted.total, counted.current
    if (total.ready, total.started, total.processed, current.ready) == (1, 1, 0, 0):
        total.reset()


def repeat_saves(trainer: pl.Trainer, hook: str) -> None:
    """Run the checkpoint callbacks that come behind the one whose file is resumed from.

    A run that is killed between two files of one moment has the first of them only, and the
    callbacks behind it would never know of that moment.

    Args:
        trainer: The Trainer that resumes.
        hook: ``on_train_epoch_end`` or ``on_validation_end``.
    """
    callbacks = list(checkpoint_callbacks(trainer))
    path = Path(str(trainer.ckpt_path)).absolute()
    own = [n for n, c in enumerate(callbacks) if path in _files(c)]
    if not own:
        return
    epochs: Any = trainer.fit_loop.epoch_progress
    # Lightning has counted the epoch as completed, or one of the two counters.
    ahead = [
        part
        for part in (epochs.total, epochs.current)
        if hook == "on_train_epoch_end" and part.completed == part.processed
    ]
    for part in ahead:
        part.completed -= 1
    for callback in callbacks[own[-1] + 1 :]:
        getattr(callback, hook)(trainer, trainer.lightning_module)
    for part in ahead:
        part.completed += 1


def _files(callback: ModelCheckpoint) -> set[Path]:
    names = {callback.best_model_path, callback.last_model_path, *callback.best_k_models}
    return {Path(name).absolute() for name in names if name}


def leave_epoch(trainer: pl.Trainer) -> None:
    """Make a resumed run continue with the end of an epoch that has no validation."""
    trainer.fit_loop.epoch_loop.val_loop._has_run = True


def resume_is_over(trainer: pl.Trainer) -> None:
    """Make schedulers follow their metric at the end of this epoch, which is known again.

    An epoch that was left without a batch would else still count as one that is resumed.
    """
    trainer.fit_loop._restarting = False
    trainer.fit_loop.epoch_loop.restarting = False


def pending_plateaus(trainer: pl.Trainer, ahead: Ahead) -> dict[str, Any] | None:
    """Return which plateau schedulers Lightning steps right after a checkpoint of this moment.

    Args:
        trainer: The running Trainer.
        ahead: What ``finish_batch`` returned; behind a validation Lightning steps them itself.
    """
    now, batches = moment(trainer), trainer.fit_loop.epoch_loop.batch_progress
    if now == "batch end" and not trainer.fit_loop._should_accumulate():
        if ahead != "validation":
            return {"interval": "step", "index": batches.current.ready}
    elif now == "epoch end" and not repeats_epoch_end(trainer):
        return {"interval": "epoch", "index": trainer.current_epoch + 1}
    return None


def step_plateaus(trainer: pl.Trainer, pending: dict[str, Any]) -> None:
    """Step the schedulers that ``pending_plateaus`` named, by the metrics that are known again."""
    if not is_automatic(trainer):
        return
    for config in trainer.lr_scheduler_configs:
        due = config.interval == pending["interval"] and pending["index"] % config.frequency == 0
        if config.reduce_on_plateau and due:
            value = trainer.fit_loop.epoch_loop._get_monitor_value(str(config.monitor))
            if value is not None:
                trainer.lightning_module.lr_scheduler_step(config.scheduler, value)


def pending_row(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Return the row of metrics that Lightning logs right after a checkpoint of this moment.

    A run that is killed between the two has lost it, since a resumed run does not log it again.
    """
    connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    now, step = moment(trainer), loop._batches_that_stepped
    if now == "batch end":
        open_step = trainer.fit_loop._should_accumulate() and is_automatic(trainer)
        if open_step or not connector.should_update_logs:
            return None
    elif now == "epoch end" and not repeats_epoch_end(trainer):
        step -= 1
    else:
        return None
    metrics = convert_tensors_to_scalars(connector.metrics["log"])
    if not metrics:
        return None
    step = int(metrics.pop("step", step))
    return {"step": step, "metrics": {"epoch": trainer.current_epoch, **metrics}}


def loader_states(checkpoint: dict[str, Any]) -> list[Any]:
    """Return the positions of the training loaders that a checkpoint holds."""
    loops = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
    states: list[Any] = loops.get("combined_loader", [])
    return states


def restart_loaders(trainer: pl.Trainer, states: list[Any]) -> None:
    """Begin the training loaders of a resumed run again, where the interrupted run stood.

    Lightning may have made their iterators long before, when something asked how many steps there
    will be (``estimated_stepping_batches``): with other random numbers, in epoch 0, and before
    it knew the positions.
    """
    loop = trainer.fit_loop
    loader, fetcher = loop._combined_loader, loop._data_fetcher
    if loader is None or fetcher is None:
        return
    if loop.restarting and states:
        loader._load_state_dicts(states)
    else:
        epochs: Any = loop.epoch_progress.current
        for each in loader.flattened:
            _set_sampler_epoch(each, epochs.processed)
    iter(fetcher)


def is_automatic(trainer: pl.Trainer) -> bool:
    """Return whether Lightning calls the optimizers itself."""
    return bool(trainer.lightning_module.automatic_optimization)
