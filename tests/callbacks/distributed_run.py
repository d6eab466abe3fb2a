"""A pruning run on two processes: ``python -m tests.callbacks.distributed_run FOLDER STRATEGY``.

Every rank writes what it decided and what it ended with to FOLDER/rank{n}.pt.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from tests.callbacks.classifiers import Classifier, masker, trainer


class Record(pl.Callback):
    """Writes decisions and weights of this rank."""

    def __init__(self, folder: Path, stage: Any) -> None:
        self.folder, self.stage = folder, stage
        self.at_cut: dict[str, torch.Tensor] = {}
        self.norms: dict[str, torch.Tensor] = {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.norms = {name: value.clone() for name, value in pl_module.named_buffers()}

    def on_channels_pruned(self, trainer: Any, pl_module: Any, pruned: Any) -> None:
        self.at_cut = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        bound = {id(p) for g in trainer.optimizers[0].param_groups for p in g["params"]}
        content = {
            "norms": dict(self.norms),
            "keep": {d.group: d.keep for d in self.stage.decisions},
            "at_cut": self.at_cut,
            "weights": {name: p.detach() for name, p in pl_module.named_parameters()},
            "bound": bound == {id(p) for p in pl_module.parameters()},
            "batches": trainer.num_training_batches,
            "ranks": trainer.world_size,
        }
        torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


def callbacks(folder: Path) -> list[Any]:
    dense = str(folder / "dense.ckpt")
    # Masks in two steps, so that the second is judged after both ranks have trained apart.
    stage = masker(layers_per_step=2, mac_target=0.4, recalibrate_images=0, dense_checkpoint=dense)
    report = PruningReport(str(folder), latency_rounds=1, show=False, figures=False)
    record = Record(folder, stage)
    average = ExponentialMovingAverage(0.9, 5.0)
    return [stage, PhysicalPruner(), OptimizerResetter(), report, average, record]


def main(folder: Path, strategy: str) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    # Metrics of a toy validation, and how Lightning starts its processes.
    warnings.filterwarnings("ignore", message=".*sync_dist=True")
    warnings.filterwarnings("ignore", message=".*os.fork")
    torch.set_num_threads(1)
    run = trainer(folder, callbacks(folder), 4, devices=2, strategy=strategy)
    run.fit(Classifier())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
