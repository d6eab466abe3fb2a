"""Runs of the contract suite, what they end with, and how two of them are compared."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.runs.csv_logger import AppendingCsvLogger
from tests.contract.registry import EPOCHS, MODULES, RECIPES, stages, trainer

# What such small runs are warned about, rightly.
QUIET = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "The dirpath has changed from",
        "classes with fewer than 10 matched objects",
        "Checkpoint directory .* exists and is not empty",
        "the schedule is over with the MAC target unmet",
        ".*is called with Trainer configured with multiple `ModelCheckpoint` callbacks",
        "ChannelResetter. no channel of",
        ".* groups? separates? the classes no better than labels dealt out at random",
        ".* cells had no spikes in the data that were evaluated",
    )
]


def pairs() -> list[Any]:
    """Return all (recipe, module) for parametrization; a representative part is not slow."""
    return [
        pytest.param(
            (name, module),
            marks=[pytest.mark.slow] if kind.slow or recipe.alike else [],
            id=f"{name}-{module}",
        )
        for module, kind in MODULES.items()
        for name, recipe in RECIPES.items()
        if name not in kind.without
    ]


def files(folder: Path, metric: str) -> list[Callback]:
    """Return checkpoints at every moment that Lightning knows."""
    every: dict[str, Any] = {"save_top_k": -1, "auto_insert_metric_name": False}
    epochs: dict[str, Any] = {**every, "every_n_epochs": 1}
    return [
        ModelCheckpoint(folder / "batch", "{step}", every_n_train_steps=1, **every),
        ModelCheckpoint(folder / "epoch", "{epoch}", save_on_train_epoch_end=True, **epochs),
        ModelCheckpoint(
            folder / "validated", "{epoch}", save_on_train_epoch_end=False, monitor=metric, **epochs
        ),
    ]


def fit(
    folder: Path,
    module: str,
    callbacks: Sequence[Callback],
    ckpt: Path | None = None,
    workers: int = 0,
    model: pl.LightningModule | None = None,
    **options: Any,
) -> pl.Trainer:
    """Train a module of the registry; a resumed run begins with other random numbers."""
    kind = MODULES[module]
    pl.seed_everything(0, verbose=False)
    if ckpt is not None:
        torch.rand(3)
    data = None if kind.data is None else kind.data(workers)
    run = trainer(folder, callbacks, **{"logger": AppendingCsvLogger(str(folder)), **options})
    run.fit(model or kind.make(workers), datamodule=data, ckpt_path=ckpt, weights_only=True)
    return run


def recorded(
    folder: Path,
    recipe: str,
    module: str,
    ckpt: Path | None = None,
    workers: int = 0,
    average: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Run a recipe with files at every moment, and return everything it ends with."""
    averages = [ExponentialMovingAverage(0.9, 5.0)] if average else []
    callbacks = [
        *stages(recipe, module, folder).values(),
        *averages,
        *files(folder, MODULES[module].metric),
    ]
    run = fit(folder, module, callbacks, ckpt, workers, **options)
    return ending(folder, run)


def ending(folder: Path, run: pl.Trainer) -> dict[str, Any]:
    """Return what a run ended with, as plain data."""
    last = torch.load(folder / "epoch" / f"{EPOCHS - 1}.ckpt", weights_only=True)
    report = folder / "pruning_report.json"
    content = json.loads(report.read_text()) if report.is_file() else {}
    content.pop("checkpoints", None)  # paths
    callbacks = {
        name: state
        for name, state in last["callbacks"].items()
        if "Checkpoint" not in name  # paths
    }
    for name, state in callbacks.items():
        if name == "Distiller":
            state.pop("path")
        if isinstance(state.get("content"), dict):
            state["content"].pop("checkpoints", None)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "weights": run.lightning_module.state_dict(),
        "validated weights": last["state_dict"],
        "optimizers": last["optimizer_states"],
        "schedules": last["lr_schedulers"],
        "scaler": last.get("MixedPrecision"),
        "callbacks": callbacks,
        "random": last["exact_resume"]["processes"],
        "monitored": last["exact_resume"]["monitored"],
        "report": content,
        "rows": rows,
    }


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Return where two nests of tensors and plain values differ, bit by bit."""
    if isinstance(ours, torch.Tensor):
        same = isinstance(theirs, torch.Tensor) and ours.shape == theirs.shape
        return [] if same and torch.equal(ours, theirs) else [place]
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if ours.keys() != theirs.keys():
            return [f"{place}: {ours.keys() ^ theirs.keys()}"]
        return [d for key in ours for d in differences(ours[key], theirs[key], f"{place}/{key}")]
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        if len(ours) != len(theirs):
            return [f"{place}: {len(ours)} and {len(theirs)} entries"]
        both = enumerate(zip(ours, theirs, strict=True))
        return [d for i, (a, b) in both for d in differences(a, b, f"{place}/{i}")]
    equal = ours == theirs or (ours != ours and theirs != theirs)
    return [] if equal else [f"{place}: {ours} and {theirs}"]
