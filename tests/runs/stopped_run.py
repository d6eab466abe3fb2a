"""A run that is asked to end; tests start it as a process of its own."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lightning_prune.runs.stop_on_signal import StopOnSignal
from tests.callbacks.classifiers import Classifier, patterns, trainer


class Workers(Classifier):
    def train_dataloader(self) -> Any:
        return DataLoader(patterns(384, 1), batch_size=16, num_workers=1, prefetch_factor=1)


class Send(pl.Callback):
    """Send SIGINT to the whole process group, or SIGTERM to rank 1."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if self.kind == "workers" and batch_idx == 0:
            os.killpg(0, signal.SIGINT)
        if self.kind == "ddp" and batch_idx == 1 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path, kind: str) -> None:
    stop = StopOnSignal(str(folder / "last.ckpt"))
    options: dict[str, Any] = {"accumulate_grad_batches": 12}
    if kind == "ddp":
        options = {"strategy": "ddp", "devices": 2}
    run = trainer(folder, [stop, Send(kind)], 2, **options)
    try:
        run.fit(Workers() if kind == "workers" else Classifier())
    except SystemExit as ended:
        (folder / f"rank{run.global_rank}.txt").write_text(f"{run.global_step} {ended.code}")
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
