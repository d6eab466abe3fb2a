"""Slices on two processes: ``python -m tests.callbacks.distributed_slices FOLDER``.

Every rank writes its masks and weights to FOLDER/rank{n}.pt.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from tests.callbacks.classifiers import Classifier, trainer
from tests.plain_stages import plain


class Record(pl.Callback):
    def __init__(self, folder: Path, stage: SliceMasker) -> None:
        self.folder, self.stage = folder, stage

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        masks = self.stage.state_dict()["originals"]["masks"]
        weights = {name: pl_module.get_submodule(name).weight.detach() for name in masks}
        content = {"masks": masks, "weights": weights, "ranks": trainer.world_size}
        torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*sync_dist=True")
    torch.set_num_threads(1)
    stage = SliceMasker(4, 0, 3, pruning_ratio=0.5)
    channels = plain(
        ChannelMasker, 1, 2, pruning_ratio=0.3, round_to=4, hold_epochs=1, recalibrate_images=32
    )
    callbacks = [
        SliceRegularizer(1e-4, 4),
        channels,
        stage,
        PhysicalPruner(),
        Record(folder, stage),
    ]
    run = trainer(folder, callbacks, 4, devices=2, strategy="ddp")
    run.fit(Classifier())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
