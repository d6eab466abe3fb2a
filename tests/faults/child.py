"""Trainings that tests kill: ``python -m tests.faults.child`` starts one for every line it reads.

Importing takes longer than such a training. So one process imports, and forks a fresh copy of
itself for each run.
"""

import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.cli.training_end import TrainingEnd
from lightning_prune.files.write_json import write_json
from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_prune.runs.checkpoint.newest_checkpoint import newest_checkpoint
from lightning_prune.runs.csv_logger import AppendingCsvLogger
from lightning_prune.runs.resume.exact_resume import ExactResume
from tests.contract.registry import MODULES, stages, trainer


def train(folder: Path, recipe: str, without: str) -> None:
    """Run a recipe on the classifier to its end, from the newest checkpoint if there is one.

    Args:
        folder: The run.
        recipe: Of conf/pruning.
        without: ``ExactResume`` or ``AtomicCheckpointIO`` leaves it out; nothing leaves all in.
    """
    pl.seed_everything(0, verbose=False)
    start = newest_checkpoint(folder)
    if start is None:
        for path in folder.glob("*.csv"):
            path.unlink()
    else:
        torch.rand(3)  # a resume must not lean on the seed
    files: dict[str, Any] = {"dirpath": folder / "checkpoints", "enable_version_counter": False}
    kind = MODULES["classifier"]
    end = TrainingEnd()
    callbacks = [
        *stages(recipe, "classifier", folder).values(),
        ExponentialMovingAverage(0.9, 5.0),
        ModelCheckpoint(**files, filename="best", monitor=kind.metric, mode="max"),
        ModelCheckpoint(**files, filename="often", every_n_train_steps=3),
        ModelCheckpoint(**files, filename="last", save_on_train_epoch_end=True),
    ]
    options: dict[str, Any] = {"logger": AppendingCsvLogger(str(folder))}
    if without != "AtomicCheckpointIO":
        options["plugins"] = AtomicCheckpointIO()
    fitter = trainer(folder, callbacks, **options)
    place = next(i for i, one in enumerate(fitter.callbacks) if isinstance(one, ExactResume))
    fitter.callbacks.insert(place + 1, end)  # it reads means that ExactResume completes
    if without == "ExactResume":
        del fitter.callbacks[place]
    model = kind.make(0)
    fitter.fit(model, ckpt_path=start, weights_only=True)
    end.complete(fitter, model)
    torch.save(model.state_dict(), folder / "end.ckpt")
    write_json(folder / "result.json", end.metrics)


def slow_disk() -> None:
    """Let every write to the disk take so long that another process can kill this one in it."""
    sync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(0.01)
        sync(descriptor)

    os.fsync = slow


def serve() -> None:
    """Start a training for every line ``[folder, recipe, without]``; answer with its process
    number, and with its exit code when it has ended.
    """
    for line in sys.stdin:
        folder, recipe, without = json.loads(line)
        Path(folder).mkdir(parents=True, exist_ok=True)
        number = os.fork()
        if number == 0:
            log = os.open(f"{folder}/output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for target, source in ((0, nothing), (1, log), (2, log)):
                os.dup2(source, target)
            code = 1
            try:
                train(Path(folder), recipe, without)
                code = 0
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    slow_disk()
    serve()
