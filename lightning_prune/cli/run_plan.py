"""Say at the start what a run is going to do."""

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl

from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.protocol import PlannedStage
from lightning_prune.runs.say import say
from lightning_prune.runs.trainer.callbacks_of import callbacks_of


class RunPlan(pl.Callback):
    """Print model, data and epochs when training starts, and when masks and cut fall.

    It stands last, so that the stages know their layers. Epochs are counted from 1.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print it, once a run."""
        for line in plan_lines(trainer, pl_module):
            say(line)


def plan_lines(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[str]:
    """Yield the lines of the plan.

    Args:
        trainer: The Trainer, about to train.
        pl_module: Its module.
    """
    yield f"model: {_model(pl_module)}"
    yield f"data: {_data(trainer)}"
    last, first = trainer.max_epochs, trainer.current_epoch + 1
    whole = "epochs: until stopped" if last in (None, -1) else f"epochs: {last}"
    yield whole if first == 1 else f"{whole}, from epoch {first} on"
    cuts = any(isinstance(one, PhysicalPruner) for one in callbacks_of(trainer))
    for callback in callbacks_of(trainer):
        line = callback.calendar(pl_module, cuts) if isinstance(callback, PlannedStage) else None
        if line is not None:
            yield f"{type(callback).__name__}: {line}"


def _model(module: pl.LightningModule) -> str:
    hparams = dict(module.hparams)
    parts = [type(module).__name__]
    parts += [f"size {hparams['size']}"] if isinstance(hparams.get("size"), str) else []
    classes, names = hparams.get("num_classes"), hparams.get("names")
    if classes is not None:
        named = f" ({_some(names)})" if isinstance(names, list | tuple) and names else ""
        parts.append(f"{classes} class{'es' if classes != 1 else ''}{named}")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return ", ".join([*parts, f"{parameters:,} parameters"])


def _some(names: Any, most: int = 5) -> str:
    shown = ", ".join(map(str, names[:most]))
    return f"{shown}, ..." if len(names) > most else shown


def _data(trainer: pl.Trainer) -> str:
    module = getattr(trainer, "datamodule", None)
    parts = [] if module is None else [type(module).__name__]
    count = _samples(trainer.train_dataloader)
    batches = f"{trainer.num_training_batches} batches an epoch"
    parts.append(batches if count is None else f"{count} samples to train on, in {batches}")
    validated = sum(n for n in trainer.num_val_batches if n != float("inf"))
    return ", ".join([*parts, f"{validated} batches to validate on"])


def _samples(loader: Any) -> int | None:
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return None
