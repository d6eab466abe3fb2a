"""Say at the start what a run is going to do."""

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl

from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.masking_stage import MaskingStage
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.regularizing_stage import RegularizingStage
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.policies.layers.layer_rule import select_groups
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
        line = _stage(callback, pl_module, cuts)
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


def _stage(callback: Any, module: pl.LightningModule, cuts: bool) -> str | None:
    """Return in which epochs a stage acts; None: it is no stage, or has no calendar."""
    if isinstance(callback, MaskingStage):
        return _masks(callback, module, cuts)
    if isinstance(callback, SliceMasker):
        return f"slices are masked {_from_to(callback.schedule.start_epoch, None)}"
    if isinstance(callback, RegularizingStage):
        end = None if callback.end_epoch is None else callback.end_epoch - 1
        return f"channels are regularized {_from_to(callback.start_epoch, end)}"
    if isinstance(callback, ChannelResetter) and callback.every_n_epochs is not None:
        first = callback.start_epoch + callback.every_n_epochs
        return (
            f"channels are reset at the start of epoch {first + 1}, then every "
            f"{callback.every_n_epochs} epochs"
        )
    return None


def _masks(stage: Any, module: pl.LightningModule, cuts: bool) -> str:
    schedule, groups = stage.schedule, stage.groups
    names = [] if groups is None else select_groups(stage.layers, module, groups)
    if isinstance(schedule, RatioSchedule):
        first, last = schedule.epochs[0], schedule.epochs[-1]
        cut = last + stage.hold_epochs
    else:
        cut = schedule.cut_epoch(max(len(names), 1))
        first, last = schedule.start_epoch, cut - schedule.hold_epochs
    when = f"at the start of epoch {first + 1}" if first == last else _from_to(first, last)
    goal = "" if stage.mac_target is None else f" until {stage.mac_target:.0%} of the MACs remain"
    layers = f"{len(names)} groups of layers are" if names[1:] else "layers are"
    end = f"; cut at the start of epoch {cut + 1} at the latest" if cuts else ""
    return f"{layers} masked {when}{goal}{end}"


def _from_to(first: int, last: int | None) -> str:
    """Return a span of epochs that are counted from 0, as people count them."""
    if last is None:
        return "from the start" if first == 0 else f"from epoch {first + 1} on"
    return f"in epochs {first + 1} to {last + 1}"
