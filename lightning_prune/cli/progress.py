"""Show the progress of training: a bar on a terminal, one line an epoch everywhere."""

import shutil
import sys
import time
from collections.abc import Collection, Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.cli.epoch_words import epoch_words
from lightning_prune.cli.terminal import shows_bars


class EpochProgress(TQDMProgressBar):
    """Draw a progress bar on a terminal and print one line after each epoch.

    In a log file the bar would leave thousands of carriage returns: there, in a pipe and in CI
    only the lines remain. Epochs are counted from 1; a run with stages says what they did in them.

    Args:
        refresh_rate: Batches between two updates of the bar, at least 1.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        if refresh_rate < 1:
            raise ValueError(
                f"refresh_rate={refresh_rate} is not allowed: give at least 1, or set "
                "callbacks.progress=null for no progress at all"
            )
        super().__init__(refresh_rate=refresh_rate if shows_bars() else 0, leave=False)
        self._start = 0.0
        self._validated = False

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the epoch's clock, and count epochs from 1."""
        super().on_train_epoch_start(trainer, *_)
        self.train_progress_bar.set_description(f"Epoch {_number(trainer)}")
        self._begin()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock too where a run resumes in the middle of an epoch."""
        super().on_train_start(trainer, pl_module)
        self._begin()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that this epoch's validation metrics are fresh."""
        super().on_validation_end(trainer, pl_module)
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line: the means of this epoch and its validation are known by now."""
        super().on_train_epoch_end(trainer, pl_module)
        words = epoch_words(trainer)
        parts = [f"epoch {_number(trainer)}", *([words] if words else [])]
        metrics = trainer.callback_metrics
        names = ["train/loss"] if "train/loss" in metrics else []
        if self._validated:
            names += _overall(sorted(name for name in metrics if name.startswith("val/")))
        parts += [f"{name} {float(metrics[name]):.4f}" for name in names]
        parts.append(f"{time.monotonic() - self._start:.1f} s")
        self.print("\n".join(epoch_lines(parts, _columns())))

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print without tearing the bar; plainly where there is none."""
        if self.is_enabled:
            super().print(*args, sep=sep, **kwargs)
        else:
            rank_zero_only(print)(*args, sep=sep, **kwargs, flush=True)

    def _begin(self) -> None:
        self._start = time.monotonic()
        self._validated = False


def _overall(names: Collection[str]) -> list[str]:
    """Return the metrics without the parts of a mean: of many sessions the mean has to do."""
    return [name for name in names if name.rpartition("/")[0] not in names]


def _columns() -> int | None:
    """Return the columns of the terminal; None: there is none, and lines may be of any length."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None


def epoch_lines(parts: Iterable[str], width: int | None) -> list[str]:
    """Return one line, or where that is too long for a terminal, several.

    Args:
        parts: What is never broken.
        width: Columns of the terminal; None: one line.

    >>> epoch_lines(["epoch 1/9", "val/loss 0.5"], 20)
    ['epoch 1/9', '  val/loss 0.5']
    """
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}  {part}" if lines else part
        if lines and (width is None or len(longer) < width):
            lines[-1] = longer
        else:
            lines.append(f"  {part}" if lines else part)
    return lines


def _number(trainer: Trainer) -> str:
    """Return which epoch it is, counted from 1, and of how many."""
    last = "?" if trainer.max_epochs in (None, -1) else str(trainer.max_epochs)
    return f"{trainer.current_epoch + 1}/{last}"
