"""What ends a run of the command line from within, once."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger


class Stopper(L.Callback):
    """Send a signal to the own process in the batch before a step, unless a file says it did.

    Step 0 stands for the test.
    """

    def __init__(self, step: int, flag: str, signum: int = 15) -> None:
        self.step, self.flag, self.signum = step, Path(flag), signum

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step + 1 == self.step:
            self._send()

    def on_test_batch_start(self, *args: Any) -> None:
        if self.step == 0:
            self._send()

    def _send(self) -> None:
        if not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), self.signum)


class WandbLogger(Logger):
    """Note with which identity it is made."""

    made: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.made.append(arguments)

    name = version = ""

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    log_hyperparams = log_metrics
