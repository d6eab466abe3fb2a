"""Runs on two processes: ``python -m tests.contract.distributed FOLDER RECIPE STRATEGY MODULE``.

One launch makes three kinds of runs, each in a folder of its own:

- ``whole``: the module of the registry, uninterrupted, with checkpoints in the middle of some
  epochs and at the end of each;
- ``from_{batches}``: the same, resumed after so many batches (``ddp`` only);
- ``plain``: a model whose arithmetic does not depend on how a batch is split, in float64.

Every rank of a run writes what it went through to ``rank{n}.pt``; the process that called ``fit``
writes the module that it is left with to ``after.pt``.
"""

import copy
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.surgery.architecture import track_architecture
from tests.callbacks.classifiers import CLASSES
from tests.contract.registry import MODULES, Classifier, stages, trainer
from tests.networks import VisionTransformer

RANKS = 2
# Batches behind which a run is resumed. 4: the end of epoch 0, where the first mask is due. 11:
# in the middle of epoch 2, most recipes hold masks. 22: in the middle of epoch 5, all have cut.
RESUMED = {4: "epochs/0.ckpt", 11: "steps/11.ckpt", 22: "steps/22.ckpt"}
# A ratio by the scales of norms needs norms, and estimating those again merges the ranks'
# statistics by their mean, which is not what one process finds.
PLAIN = {
    "bn_scale": (
        "pruning.masker.compensate_images=0",
        "pruning.masker.recalibrate_images=0",
        "pruning.pruner.recalibrate_images=0",
    ),
    # Features are compared in the variances of a rank's own samples.
    "channel_distilled": ("pruning.distiller.features=0",),
}


def _conv(inputs: int, outputs: int, stride: int, norms: bool) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norms)
    # In eval mode a norm is a scale and a shift: no sample sees another one.
    norm = nn.BatchNorm2d(outputs).eval() if norms else nn.Identity()
    return nn.Sequential(conv, norm, nn.SiLU())


class PlainNet(nn.Module):
    """The network of the registry without dropout, and with frozen norms or none."""

    def __init__(self, norms: bool) -> None:
        super().__init__()
        self.stem = _conv(1, 16, 1, norms)
        self.inner, self.outer = _conv(16, 24, 1, norms), _conv(24, 16, 1, norms)
        self.deep = _conv(16, 32, 2, norms)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.outer(self.inner(x))
        return self.head(self.deep(x).mean((2, 3)))


class PlainClassifier(Classifier):
    """A classifier whose loss of a batch is the mean of the losses of its samples, nothing else.

    The noise of the data stays: it depends on epoch and sample, not on the process.
    """

    def __init__(self, norms: bool = False) -> None:
        # Not the base class's: the record of the architecture would be that of its own network.
        pl.LightningModule.__init__(self)
        self.save_hyperparameters({"workers": 0})
        torch.manual_seed(0)
        self.net = self.plain_network(norms)
        self.accuracy = MulticlassAccuracy(CLASSES)
        self.example_input_array = torch.zeros(1, 1, 8, 8)
        track_architecture(self)

    def plain_network(self, norms: bool) -> nn.Module:
        return PlainNet(norms)


class PlainTransformer(PlainClassifier):
    """The same with attention; it has no norms over samples."""

    def plain_network(self, norms: bool) -> nn.Module:
        return VisionTransformer(CLASSES)


PLAIN_MODULES = {"classifier": PlainClassifier, "transformer": PlainTransformer}


class Record(Callback):
    """Writes what this rank goes through, batch by batch and epoch by epoch."""

    def __init__(self, folder: Path, pruning: Sequence[Callback], seed: int) -> None:
        # A report holds what this rank alone has validated.
        self.stages = [
            stage
            for stage in pruning
            if isinstance(stage, PruningStage) and not isinstance(stage, PruningReport)
        ]
        self.folder, self.seed = folder, seed
        self.content: dict[str, Any] = {"cut": None, "batches": {}, "epochs": {}}
        self.alone: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Both ranks would otherwise drop the same units.
        torch.manual_seed(self.seed + trainer.global_rank)

    def on_channels_pruned(self, trainer: Any, pl_module: Any, pruned: Any) -> None:
        self.content["cut"] = {
            "epoch": trainer.current_epoch,
            "keep": dict(pruned.plan.keep),
            "channels": dict(pruned.plan.channels),
            "parameters": _copies(pl_module.named_parameters()),
            "norms": _copies(pl_module.named_buffers()),
        }

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the gradient of this rank's share: what it would be without the other."""
        net = copy.deepcopy(pl_module.net)
        net.zero_grad()
        with torch.random.fork_rng(devices=[]):
            F.cross_entropy(net(batch[0]), batch[1]).backward()
        self.alone = {name: p.grad for name, p in net.named_parameters()}

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        place = f"{trainer.current_epoch}.{trainer.fit_loop.epoch_loop.batch_idx}"
        grads = {name: p.grad.clone() for name, p in pl_module.net.named_parameters()}
        self.content["batches"][place] = {"alone": self.alone, "averaged": grads}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        schedule = trainer.lr_scheduler_configs[0].scheduler.state_dict()
        # The whole state of a recipe's schedule holds functions.
        numbers = schedule.keys() & {"last_epoch", "_last_lr", "base_lrs"}
        content = {
            "parameters": _copies(pl_module.named_parameters()),
            "average": _copies(averaged_copies(trainer)[0].named_parameters()),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": {name: schedule[name] for name in numbers},
            "stages": {type(stage).__name__: stage.state_dict() for stage in self.stages},
        }
        self.content["epochs"][trainer.current_epoch] = copy.deepcopy(content)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.content["ranks"] = trainer.world_size
        self.content["trained"] = _all_bound(trainer, pl_module)
        self.content["random"] = torch.get_rng_state()
        torch.save(self.content, self.folder / f"rank{trainer.global_rank}.pt")


def _copies(named: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in named}


def _all_bound(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
    held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    return held == {id(p) for p in pl_module.parameters()}


def fit(
    folder: Path,
    recipe: str,
    module: str,
    ckpt: Path | None = None,
    plain: bool = False,
    **options: Any,
) -> pl.LightningModule:
    """Train with a recipe, and return the module as the calling process is left with it."""
    folder.mkdir(exist_ok=True)
    pl.seed_everything(0, verbose=False)
    overrides = PLAIN.get(recipe, ()) if plain else ()
    pruning = list(stages(recipe, module, folder, overrides).values())
    every: dict[str, Any] = {"save_top_k": -1, "auto_insert_metric_name": False}
    files = [
        ModelCheckpoint(folder / "steps", "{step}", every_n_train_steps=11, **every),
        ModelCheckpoint(folder / "epochs", "{epoch}", save_on_train_epoch_end=True, **every),
    ]
    # A resumed run begins with other random numbers.
    record = Record(folder, pruning, 100 if ckpt is None else 200)
    callbacks = [*pruning, ExponentialMovingAverage(0.9, 5.0), record, *([] if plain else files)]
    options |= {"precision": "64-true"} if plain else {}
    model = PLAIN_MODULES[module](recipe in PLAIN) if plain else MODULES[module].make(0)
    trainer(folder, callbacks, **options).fit(model, ckpt_path=ckpt, weights_only=True)
    return model


def main(folder: Path, recipe: str, strategy: str, module: str) -> None:
    warnings.simplefilter("error")
    for text in (
        ".*LeafSpec.*deprecated",
        ".*does not have many workers",
        ".*sync_dist=True",  # metrics of a toy validation
        ".*os.fork",  # how Lightning starts its processes
        "The dirpath has changed from",
        "Found .* in eval mode",  # frozen norms
        "the schedule is over with the MAC target unmet",
        "ChannelResetter: no channel of",
    ):
        warnings.filterwarnings("ignore", message=text)
    torch.set_num_threads(1)
    options: dict[str, Any] = {"devices": RANKS, "strategy": strategy}
    whole = fit(folder / "whole", recipe, module, **options)
    if strategy == "ddp_spawn":
        torch.save(whole.state_dict(), folder / "whole" / "after.pt")
        os.environ.pop("MASTER_PORT")  # Lightning keeps it: another run asks for a free one
    else:
        for batches, file in RESUMED.items():
            ckpt = folder / "whole" / file
            fit(folder / f"from_{batches}", recipe, module, ckpt, **options)
    fit(folder / "plain", recipe, module, plain=True, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
