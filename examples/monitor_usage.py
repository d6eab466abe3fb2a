"""Watch which channels a training uses, epoch by epoch, and change nothing.

python examples/monitor_usage.py: handwritten digits.

The table has a column for each layer: how many channels were used in this epoch, of how many, and
in which fraction of the epoch's batches a channel was used on average. Channels die while
the rate is high, the last layer first, and the accuracy with them; the pictures are in
figures/usage.png of the folder, the numbers also in the logger (usage/...).
"""

from typing import Any

import lightning.pytorch as pl
import torch
from periodic_reset import NarrowClassifier
from prune_classifier import Digits

import lightning_prune as lp


class UsageTable(pl.Callback):
    """Print a row at the end of every epoch."""

    def __init__(self, tracker: lp.ChannelResetter) -> None:
        self.tracker = tracker
        self.rows: list[list[int]] = []
        self.before: dict[str, Any] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the report with that of the epoch before: nothing is reset, so counts grow."""
        report = self.tracker.get_channel_usage_report()
        if not self.rows:
            print("epoch accuracy" + "".join(f"{name:>20}" for name in report))
        row, cells = [], ""
        for name, stats in report.items():
            before = self.before.get(name, {"usage_count": 0, "forwards": 0})
            counts = stats["usage_count"] - before["usage_count"]
            share = counts.float().mean() / (stats["forwards"] - before["forwards"])
            row.append(int((counts > 0).sum()))
            cells += f"{row[-1]:8d} of {len(counts):2d} ({share:4.0%})"
        accuracy = trainer.callback_metrics.get("val/accuracy", torch.nan)
        print(f"{trainer.current_epoch:5d} {accuracy:8.3f}{cells}")
        self.rows, self.before = [*self.rows, row], report


def main(folder: str = "outputs/usage", epochs: int = 12, lr: float = 0.04) -> list[list[int]]:
    """Train and print the table; return the used channels of every epoch and layer."""
    pl.seed_everything(0)
    tracker = lp.ChannelResetter(every_n_epochs=None)  # only track
    table = UsageTable(tracker)
    callbacks = [tracker, lp.PruningReport(folder, latency_rounds=0, show=False), table]
    trainer = pl.Trainer(max_epochs=epochs, callbacks=callbacks, default_root_dir=folder)
    trainer.fit(NarrowClassifier(lr, epochs), datamodule=Digits())
    return table.rows


if __name__ == "__main__":
    main()
