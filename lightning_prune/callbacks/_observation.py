"""Object activations of a model in training, over all processes."""

from collections.abc import Sequence
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import nn

from lightning_prune.callbacks._data import (
    collection_batches,
    forward_batch,
    objects_function,
    samples_function,
)
from lightning_prune.callbacks._masked import apply_masks
from lightning_prune.callbacks.trainer.averages import average_norms
from lightning_prune.callbacks.trainer.precision import forward_context
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.observe.activations import (
    Matching,
    ObjectActivations,
    collect_activations,
    merge_activations,
)
from lightning_prune.plan import PruningPlan
from lightning_prune.runs.trainer.ranks import broadcast, gather, total
from lightning_prune.surgery.compensate import compensate
from lightning_prune.surgery.recalibrate import recalibrate_norms

Background = bool | Literal["auto"]
_SHUFFLES = 8
"""Random labellings beside the labels themselves."""


def background_class(
    wanted: Background, trainer: pl.Trainer, pl_module: pl.LightningModule
) -> int | None:
    """Return the class that background cells get: the number of object classes; None: no cells.

    Raises:
        ValueError: background is wanted, but nothing says how many classes there are.
    """
    if wanted is False:
        return None
    owners = (pl_module, getattr(trainer, "datamodule", None))
    known = [n for n in (getattr(o, "num_classes", None) for o in owners) if n is not None]
    if wanted == "auto":
        return 1 if known and known[0] == 1 else None
    if not known:
        raise ValueError(
            "background=true needs num_classes on the LightningModule or the DataModule"
        )
    return int(known[0])


@torch.no_grad()
def agree_on_norms(trainer: pl.Trainer, model: nn.Module) -> None:
    """Give every rank the norm statistics of rank 0.

    DDP lets them drift apart, and does the same before every forward pass. A checkpoint holds
    those of rank 0 only: with anything else a resumed run would decide on other numbers.
    """
    if trainer.world_size == 1:
        return
    kinds = ("running_mean", "running_var")
    norms = {n: v for n, v in model.named_buffers() if n.rpartition(".")[2] in kinds}
    agreed = broadcast(trainer, {name: value.cpu() for name, value in norms.items()})
    for name, value in norms.items():
        value.copy_(agreed[name])


def observe_objects(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    layers: Sequence[str],
    *,
    images: int | None,
    matching: Matching,
    background: Background,
    seed: int,
    beside_chance: bool = False,
) -> ObjectActivations:
    """Gather the object activations of some layers from about ``images`` training images.

    Every process reads its share; all of them return the merged result. ``beside_chance``: with
    statistics under random labels.
    """
    agree_on_norms(trainer, pl_module)
    with forward_context(trainer):
        part = collect_activations(
            pl_module,
            collection_batches(trainer, pl_module, images),
            layers,
            samples_function(pl_module),
            forward_batch,
            objects_of=objects_function(pl_module),
            matching=matching,
            background=background_class(background, trainer, pl_module),
            seed=seed + trainer.global_rank,
            shuffles=_SHUFFLES if beside_chance else 0,
            warn=False,
        )
    return merge_activations(gather(trainer, part))


def recalibrate(trainer: pl.Trainer, pl_module: pl.LightningModule, images: int) -> None:
    """Estimate norm statistics anew from about ``images`` training images of all processes."""
    with forward_context(trainer):
        recalibrate_norms(pl_module, collection_batches(trainer, pl_module, images), forward_batch)
    average_norms(trainer, pl_module)


def compensate_readers(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    groups: ChannelGroups,
    plan: PruningPlan,
    held: PruningPlan,
    images: int,
) -> None:
    """Let the readers of channels that are about to go take over what they were told."""
    agree_on_norms(trainer, pl_module)
    with forward_context(trainer):
        compensate(
            pl_module,
            groups,
            plan,
            lambda: collection_batches(trainer, pl_module, images),
            forward_batch,
            held=held,
            total=lambda products: total(trainer, products),
        )
    apply_masks(trainer)
