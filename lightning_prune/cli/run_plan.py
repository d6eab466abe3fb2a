"""Say at the start what a run is going to do."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.protocol import PlannedStage
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.files.near_path import near_path
from lightning_prune.runs.say import say
from lightning_prune.runs.trainer.callbacks_of import callbacks_of

_INDENT = 10
_PRECISIONS = {"32-true": "32 bits", "64-true": "64 bits", "bf16-mixed": "bf16 and 32 bits"}


class RunPlan(pl.Callback):
    """Print model, data, machine, output and epochs when training starts, and when stages act.

    It stands last, so that the stages know their layers. Epochs are counted from 1.

    Args:
        folder: Where the output goes; None: not said.
        target: Settings of conf/target; None: none was chosen.
    """

    def __init__(self, folder: str | None = None, target: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.target = target

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print it, once a run."""
        rows = [*header(trainer, pl_module, self.folder)]
        if self.target is not None:
            place = next((n for n, row in enumerate(rows) if row[0] == "output"), len(rows))
            rows[place:place] = _target(trainer, self.target)
        for line in aligned(rows):
            say(line)


def _target(trainer: pl.Trainer, target: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a target comes to in this run: a recipe or an override may say otherwise."""
    maskers = [
        one
        for one in callbacks_of(trainer)
        if isinstance(one, ChannelMasker | SequentialActivationMasker)
    ]
    if not maskers:
        rank_zero_warn(
            f"target={target['name']} has no effect: no stage of this run chooses widths; add a "
            "recipe that cuts, such as +pruning=channel, or leave the target out"
        )
    for masker in maskers:
        fast = masker.fast_widths
        vector = "" if fast is None else f", {fast.vector} channels at once"
        text = f"widths in multiples of {masker.round_to}{vector} ({target['evidence']})"
        yield "target", f"{target['name']}: {text}"


def header(
    trainer: pl.Trainer, pl_module: pl.LightningModule, folder: str | None
) -> Iterator[tuple[str, str]]:
    """Yield labels and texts of what a run is going to do; what is not known is left out.

    Args:
        trainer: The Trainer, about to train.
        pl_module: Its module.
        folder: Where the output goes.
    """
    yield "model", ", ".join([_model(pl_module), *_macs(trainer)])
    yield "data", _data(trainer)
    yield "machine", _machine(trainer)
    if folder is not None:
        yield "output", near_path(folder)
    last, first = trainer.max_epochs, trainer.current_epoch + 1
    whole = "until stopped" if last in (None, -1) else f"{last}"
    yield "epochs", whole if first == 1 else f"{whole}, from epoch {first} on"
    cuts = any(isinstance(one, PhysicalPruner) for one in callbacks_of(trainer))
    for callback in callbacks_of(trainer):
        line = callback.calendar(pl_module, cuts) if isinstance(callback, PlannedStage) else None
        if line is not None:
            yield "", f"{type(callback).__name__}: {line}"


def aligned(rows: Sequence[tuple[str, str]], width: int | None = None) -> Iterator[str]:
    """Yield a line for each label and text, or several where the terminal is narrower.

    Args:
        rows: Labels and texts.
        width: Columns; None: those of the terminal, endless where there is none.

    >>> list(aligned([("data", "Digits"), ("", "many words")], 16))
    ['data      Digits', '          many', '            words']
    """
    if width is None:
        width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 10_000
    for label, text in rows:
        yield from textwrap.wrap(
            text,
            max(width, _INDENT + 6),
            initial_indent=f"{label:<{_INDENT}}",
            subsequent_indent=" " * (_INDENT + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _macs(trainer: pl.Trainer) -> Iterator[str]:
    """Yield the MACs of the model, where a report has counted them."""
    reports = (one for one in callbacks_of(trainer) if isinstance(one, PruningReport))
    macs = next((one.content.dense.macs for one in reports), None)
    if macs:
        cut = trainer.current_epoch > 0
        yield f"{macs / 1e6:,.1f} million MACs{' before pruning' if cut else ''}"


def _machine(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    parts = [name if trainer.world_size == 1 else f"{trainer.world_size} times {name}"]
    parts.append(_PRECISIONS.get(str(trainer.precision), str(trainer.precision)))
    if device.type == "cpu":
        threads = torch.get_num_threads()
        parts.append(f"{threads} thread{'s' * (threads > 1)}")
    seed = os.environ.get("PL_GLOBAL_SEED")
    return ", ".join([*parts, *([] if seed is None else [f"seed {seed}"])])


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
    count = _samples(trainer.train_dataloader, trainer.num_training_batches)
    batches = f"{trainer.num_training_batches} batches an epoch"
    parts.append(batches if count is None else f"{count} samples to train on, in {batches}")
    return ", ".join([*parts, *_validated(trainer)])


def _validated(trainer: pl.Trainer) -> Iterator[str]:
    """Yield how much there is to validate on: samples where all loaders know, else batches."""
    loaders = trainer.val_dataloaders
    several = loaders if isinstance(loaders, list | tuple) else [loaders]
    counts = list(map(_samples, several, trainer.num_val_batches))
    batches = sum(n for n in trainer.num_val_batches if n != float("inf"))
    if batches and None not in counts:
        yield f"{sum(count or 0 for count in counts)} to validate on"
    elif batches:
        yield f"{batches} batches to validate on"


def _samples(loader: Any, batches: float) -> int | None:
    """Return how many samples are seen; None: the loader does not say, or is not used in full."""
    try:
        return len(loader.dataset) if len(loader) == batches else None
    except (AttributeError, TypeError):
        return None
