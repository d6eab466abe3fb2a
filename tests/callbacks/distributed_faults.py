"""A run on two processes that goes wrong: ``python -m tests.callbacks.distributed_faults FOLDER``.

Epoch 1: an importance is not finite; epoch 2: masked; epoch 3: the loss of rank 1 alone is NaN at
its second step. Every rank writes what it saw to FOLDER/rank{n}.pt.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.runs.non_finite_weights import NonFiniteWeightsError
from tests.callbacks.classifiers import Classifier, trainer
from tests.plain_stages import plain


class Faulty(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        wrong = self.trainer.current_epoch == 3 and batch_idx == 1 and self.global_rank == 1
        return loss * float("nan") if wrong else loss


class Unsure(GroupNorm):
    asked = 0

    def importance(self, evidence: Any) -> Any:
        self.asked += 1
        values = super().importance(evidence)
        return values * float("inf") if self.asked == 1 else values


class Widths(pl.Callback):
    def __init__(self, stage: Any) -> None:
        self.stage, self.masked = stage, []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.masked.append({n: k.tolist() for n, k in self.stage.plan.keep.items()})


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    for known in (".*LeafSpec.*deprecated", ".*many workers", ".*sync_dist=True", ".*os.fork"):
        warnings.filterwarnings("ignore", message=known)
    warnings.filterwarnings("ignore", message="ChannelMasker masks nothing at the start of epoch 2")
    torch.set_num_threads(1)
    stage = plain(ChannelMasker, 1, 3, pruning_ratio=0.5, criterion=Unsure(), hold_epochs=3)
    widths = Widths(stage)
    run = trainer(folder, [stage, PhysicalPruner(), widths], 8, devices=2, strategy="ddp")
    text = ""
    try:
        run.fit(Faulty())
    except NonFiniteWeightsError as error:
        text = str(error)
    content = {"error": text, "masked": widths.masked, "step": run.global_step}
    torch.save(content, folder / f"rank{run.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
