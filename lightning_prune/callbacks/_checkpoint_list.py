"""Which checkpoint of a run holds which model, for the report."""

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.protocol import DenseCheckpointWriter
from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.report.report_data import CheckpointRow
from lightning_prune.runs.checkpoint.read_epoch import read_epoch
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.runs.trainer.fit_state import checkpoint_callbacks


def checkpoint_list(
    trainer: pl.Trainer, folder: Path, masked: int | None, cut: int | None
) -> list[CheckpointRow]:
    """Describe the checkpoints that callbacks have written and that are there.

    Args:
        trainer: The Trainer.
        folder: Files below it are named relative to it, others by their whole path.
        masked: Epoch at whose start something was masked first, or None.
        cut: Epoch at whose start channels were cut, or None.

    Returns:
        A row for each file.
    """
    rows: dict[Path, CheckpointRow] = {}
    for path, row in [*_saved(trainer), *_dense(trainer)]:
        if not path.is_file() or path.absolute() in rows:
            continue
        row.file = _name(path, folder)
        row.epoch, problem = _epoch(path)
        if row.holds is None and row.epoch is not None:
            row.holds = _holds(row.epoch, masked, cut)
        elif row.holds == "dense" and row.epoch is not None:
            # Written at the start of an epoch, with the weights of the one before.
            row.epoch = row.epoch - 1 if row.epoch else None
        row.why += "" if problem is None else f"; {problem}"
        row.bytes, row.sha256 = path.stat().st_size, _digest(path)
        rows[path.absolute()] = row
    return list(rows.values())


def _row(
    why: str, metric: Any = None, monitored: str | None = None, holds: str | None = None
) -> CheckpointRow:
    value = math.nan if metric is None else float(metric)
    finite = value if math.isfinite(value) else None
    return CheckpointRow("", holds, None, finite, monitored, why)


def _saved(trainer: pl.Trainer) -> Iterator[tuple[Path, CheckpointRow]]:
    for callback in checkpoint_callbacks(trainer):
        if callback.monitor is not None:
            yield from _best(callback, callback.monitor)
        elif callback.best_model_path:
            many = callback.save_top_k == -1
            why = "the latest of a file for every save" if many else "the latest"
            yield Path(callback.best_model_path), _row(why)
        if callback.last_model_path:
            yield Path(callback.last_model_path), _row("the latest (save_last)")


def _best(callback: ModelCheckpoint, monitored: str) -> Iterator[tuple[Path, CheckpointRow]]:
    which = "highest" if callback.mode == "max" else "lowest"
    where = "of the cut model" if isinstance(callback, PrunedCheckpoint) else "of the whole run"
    best = f"{which} {monitored} {where}"
    # A run that was resumed in another folder knows the old best file only by its name.
    known = {callback.best_model_path: callback.best_model_score, **callback.best_k_models}
    for path, metric in known.items():
        why = best if path == callback.best_model_path else f"among the best: {best}"
        if path:
            yield Path(path), _row(why, metric, monitored)


def _dense(trainer: pl.Trainer) -> Iterator[tuple[Path, CheckpointRow]]:
    for callback in callbacks_of(trainer):
        if isinstance(callback, DenseCheckpointWriter) and callback.dense_checkpoint is not None:
            row = _row("before the first mask (dense_checkpoint)", holds="dense")
            yield Path(callback.dense_checkpoint), row


def _holds(epoch: int, masked: int | None, cut: int | None) -> str:
    if cut is not None and epoch >= cut:
        return "cut"
    return "masked" if masked is not None and epoch >= masked else "dense"


def _epoch(path: Path) -> tuple[int | None, str | None]:
    """Read the epoch in which a file was written, or say why it cannot be read."""
    try:
        return read_epoch(path), None
    except CheckpointError:
        return None, "cannot be read"
    except (KeyError, TypeError, ValueError):
        return None, "says no epoch"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: Path, folder: Path) -> str:
    full, root = os.path.realpath(path), os.path.realpath(folder)
    inside = Path(full).is_relative_to(root)
    return Path(full).relative_to(root).as_posix() if inside else full
