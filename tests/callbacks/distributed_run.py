"""A pruning run on two processes: ``python -m tests.callbacks.distributed_run FOLDER STRATEGY``.

Every rank writes what it decided and what it ended with to FOLDER/rank{n}.pt.
"""

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn.functional import cross_entropy

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.policies.criteria.criterion import Criterion
from tests.callbacks.classifiers import Classifier, masker, patterns, trainer
from tests.plain_stages import plain


class Record(pl.Callback):
    """Writes decisions and weights of this rank."""

    def __init__(self, folder: Path, stage: Any, by_gradient: Any, expected: Any) -> None:
        self.expected = expected
        self.folder, self.stage, self.by_gradient = folder, stage, by_gradient
        self.at_cut: dict[str, torch.Tensor] = {}
        self.norms: dict[str, torch.Tensor] = {}
        self.widths: dict[str, int] = {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.norms = {name: value.clone() for name, value in pl_module.named_buffers()}

    def on_channels_pruned(self, trainer: Any, pl_module: Any, pruned: Any) -> None:
        self.widths = pruned.plan.widths()
        self.at_cut = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        bound = {id(p) for g in trainer.optimizers[0].param_groups for p in g["params"]}
        content = {
            "norms": dict(self.norms),
            "keep": {d.group: d.keep for d in self.stage.decisions},
            "kept_by_gradient": self.by_gradient.decisions[0].keep if self.widths else None,
            "gradient": self.by_gradient.criterion.gradient,
            "expected_gradient": self.expected.gradient,
            "widths": self.widths,
            "at_cut": self.at_cut,
            "weights": {name: p.detach() for name, p in pl_module.named_parameters()},
            "bound": bound == {id(p) for p in pl_module.parameters()},
            "batches": trainer.num_training_batches,
            "ranks": trainer.world_size,
        }
        torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


class FirstOrder(Criterion):
    """|sum of weight times gradient| of the root's rows; keeps the gradient it was given."""

    needs = frozenset({"gradients"})
    gradient: torch.Tensor | None = None

    def importance(self, evidence: Any) -> torch.Tensor:
        weight = evidence.model.get_submodule(evidence.group.name).weight.detach()
        self.gradient = evidence.model.get_submodule(evidence.group.name).weight.grad.clone()
        return (weight * self.gradient).flatten(1).sum(1).abs()


class Expected(pl.Callback):
    """What one process finds for the same gradient, from the fractions of both ranks."""

    gradient: torch.Tensor | None = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            net = copy.deepcopy(pl_module.net).train()
            net.zero_grad()
            images, label = patterns(96, 1).tensors
            for rank in (0, 1):
                share = slice(rank, None, 2)
                for x, y in zip(images[share].split(32), label[share].split(32), strict=True):
                    (cross_entropy(net(x), y) * len(y) / 96).backward()
            self.gradient = net.deep[0].weight.grad


def callbacks(folder: Path) -> list[Any]:
    dense = str(folder / "dense.ckpt")
    # Masks in two steps, so that the second is judged after both ranks have trained apart.
    stage = masker(layers_per_step=2, mac_target=0.4, recalibrate_images=0, dense_checkpoint=dense)
    report = PruningReport(
        str(folder), latency_rounds=1, latency_runtime="pytorch", show=False, figures=False
    )
    # Of the last layer's channels a quarter goes by the gradients of all ranks.
    by_gradient = plain(
ChannelMasker,
        1, 2, pruning_ratio=0.25, layers=["net.deep.0"], criterion=FirstOrder(),
        recalibrate_images=32, gradient_images=96,
    )  # fmt: skip
    expected = Expected()
    record = Record(folder, stage, by_gradient, expected)
    average = ExponentialMovingAverage(0.9, 5.0)
    stages = [stage, expected, by_gradient, PhysicalPruner(recalibrate_images=32)]
    return [*stages, OptimizerResetter(), report, average, record]


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
