"""Runs that are killed with SIGKILL and resumed; tests start it as a process of its own.

Its children are forked before anything is trained, so that each begins as a new process would and
nothing is imported twice.
"""

import csv
import json
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassF1Score, MulticlassPrecision, MulticlassRecall
from torchmetrics.wrappers import Running

from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.sampler import PermutationSampler
from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_prune.runs.checkpoint.newest_checkpoint import newest_checkpoint
from lightning_prune.runs.csv_logger import AppendingCsvLogger
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.runs.stop_on_signal import StopOnSignal
from tests.callbacks.classifiers import CLASSES, patterns, trainer
from tests.contract.registry import Classifier, Noisy
from tests.contract.runs import differences

ASKED = "half epochs, asked to end by SIGTERM"
# Options of a Trainer, and where it is killed: a hook and the how manieth call of it.
SCENARIOS: dict[str, tuple[dict[str, Any], list[tuple[str, int]]]] = {
    "half epochs": (
        {"val_check_interval": 0.5},
        [("on_train_batch_start", 2), ("on_validation_start", 0), ("on_validation_end", 1)],
    ),
    "half epochs, elsewhere": (
        {"val_check_interval": 0.5},
        [("on_validation_batch_end", 0), ("on_validation_start", 2), ("on_before_zero_grad", 10),
         ("on_train_epoch_end", 0)],
    ),
    ASKED: (
        {"val_check_interval": 0.5},
        [("on_train_batch_start", 1), ("on_train_batch_start", 2), ("on_validation_start", 0),
         ("on_validation_start", 1), ("on_validation_end", 2), ("on_train_epoch_end", 0)],
    ),
    "every two batches, every two epochs": (
        {"val_check_interval": 2, "check_val_every_n_epoch": 2},
        [("on_validation_start", 0), ("on_validation_start", 2), ("on_train_batch_start", 8)],
    ),
    "every five batches of the run": (
        {"val_check_interval": 5, "check_val_every_n_epoch": None},
        [("on_validation_start", 0), ("on_validation_start", 2), ("on_train_epoch_end", 1)],
    ),
    "accumulated gradients": (
        {"val_check_interval": 2, "accumulate_grad_batches": 2},
        [("on_validation_start", 1), ("on_train_batch_start", 5), ("on_train_batch_start", 9)],
    ),
    "a validation between accumulated gradients": (
        {"val_check_interval": 3, "accumulate_grad_batches": 2},
        [("on_validation_start", 0), ("on_train_batch_start", 3), ("on_train_batch_start", 9)],
    ),
    "a number of steps": (
        {"val_check_interval": 3, "max_epochs": -1, "max_steps": 16},
        [("on_validation_start", 0), ("on_validation_start", 3), ("on_train_epoch_end", 1)],
    ),
}  # fmt: skip


class Measured(Classifier):
    """Has metrics that ``self.log`` does not know as objects, in every place where one can be."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = MeanMetric()
        self.ever = SumMetric()
        self.window = Running(MeanMetric(), window=3)
        kinds = (MulticlassF1Score, MulticlassPrecision, MulticlassRecall)
        self.several = MetricCollection([kind(CLASSES, average="macro") for kind in kinds])
        self.listed = [MeanMetric()]
        self.of_validation = MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        for metric in (self.seen, self.ever, self.window, *self.listed):
            metric.update(loss.detach())
        self.several.update(self(batch[0]), batch[1])
        self.log("train/window", self.window.compute())
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)
        self.of_validation.update(self(batch[0]).square().mean())

    def on_validation_epoch_end(self) -> None:
        self.log("val/mean", self.of_validation.compute())
        self.of_validation.reset()

    def on_train_epoch_end(self) -> None:
        self.log("train/seen", self.seen.compute())
        self.log("train/ever", self.ever.compute())
        self.log("train/listed", self.listed[0].compute())
        self.log_dict({f"train/{k}": v for k, v in self.several.compute().items()})
        for metric in (self.seen, self.several, *self.listed):
            metric.reset()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        own = {"scheduler": plateau, "interval": "step", "monitor": "val/mean", "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": own}

    def train_dataloader(self) -> ResumableLoader:
        data = Noisy(96, 1)
        sampler = PermutationSampler(data, 0)
        return ResumableLoader(data, sampler=sampler, progress=self._completed, batch_size=16)

    def val_dataloader(self) -> Any:
        return [DataLoader(patterns(count, 2), batch_size=16) for count in (32, 16)]


class Watching(pl.Callback):
    """A callback with a metric of its own."""

    def __init__(self) -> None:
        self.norm = MeanMetric()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.norm.update(pl_module.net.head.weight.detach().norm())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("train/norm", self.norm.compute())
        self.norm.reset()


class Kill(pl.Callback):
    """Kill the process at one call of a hook, before the callbacks behind this one save."""

    def __init__(self, hook: str, call: int, signum: int) -> None:
        self.left, self.signum = call, signum
        setattr(self, hook, self._count)

    def _count(self, trainer: Any, *args: Any) -> None:
        if self.left == 0:
            os.kill(os.getpid(), self.signum)
        self.left -= 1


def run(folder: Path, options: dict[str, Any], death: tuple[str, int, int] | None) -> None:
    """Train in a folder, from its newest checkpoint."""
    warnings.simplefilter("ignore")
    ckpt = newest_checkpoint(folder)
    pl.seed_everything(0, verbose=False)
    if ckpt is not None:
        torch.rand(3)
    one: dict[str, Any] = {"enable_version_counter": False}
    callbacks = [
        Watching(),
        *([] if death is None else [Kill(*death)]),
        ExactResume(),
        ModelCheckpoint(folder, "last", every_n_train_steps=1, **one),
        ModelCheckpoint(folder, "best", monitor="val/mean", save_on_train_epoch_end=False, **one),
        ModelCheckpoint(folder, "epoch", save_on_train_epoch_end=True, **one),
    ]
    if death is not None and death[2] == signal.SIGTERM:
        callbacks.insert(0, StopOnSignal(str(folder / "last.ckpt")))
    options = {"logger": AppendingCsvLogger(str(folder)), "log_every_n_steps": 1, **options}
    own = {"plugins": [AtomicCheckpointIO()], "enable_checkpointing": True}
    trainer(folder, callbacks, 3, **own, **options).fit(Measured(), ckpt_path=ckpt)


def fork(folder: Path, options: dict[str, Any], death: tuple[str, int, int] | None = None) -> int:
    """Train in a child, and return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        run(folder, options, death)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(folder: Path) -> dict[str, Any]:
    """What a run came to, without where it lies and without the time."""
    files = {}
    for path in sorted(folder.glob("*.ckpt")):
        content = torch.load(path, weights_only=True)
        kept = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
        files[path.name] = {key: content[key] for key in kept}
    with (folder / "metrics.csv").open() as file:
        return {"files": files, "rows": list(csv.DictReader(file))}


def main(folder: Path, name: str) -> dict[str, Any]:
    """Return what is wrong: ways to die, and how the resumed run differs from the whole one."""
    options, deaths = SCENARIOS[name]
    whole = folder / "whole"
    if fork(whole, options) != 0:
        return {"whole": ["did not end"]}
    expected, wrong = end(whole), {}
    signum, code = (signal.SIGTERM, 143) if name == ASKED else (signal.SIGKILL, -9)
    for hook, call in deaths:
        part = folder / f"{hook}_{call}"
        died = fork(part, options, (hook, call, signum))
        resumed = fork(part, options)
        found = differences(expected, end(part)) if (died, resumed) == (code, 0) else ["exit codes"]
        wrong[f"{hook} {call}"] = [died, resumed, found[:4]]
    return wrong


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
