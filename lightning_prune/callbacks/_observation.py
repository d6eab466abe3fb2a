"""Object activations of a model in training, over all processes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lightning_prune.callbacks._data import (
    collection_batches,
    forward_batch,
    objects_function,
    samples_function,
)
from lightning_prune.callbacks.trainer.precision import forward_context
from lightning_prune.graph.outputs import LayerOutput
from lightning_prune.observe.activations import (
    Matching,
    ObjectActivations,
    collect_activations,
    merge_activations,
)
from lightning_prune.observe.output_means import OutputMean, collect_outputs, merge_outputs
from lightning_prune.runs.trainer.ranks import broadcast, gather
from lightning_prune.surgery.recalibrate import norm_statistics

Background = bool | Literal["auto"]
_SHUFFLES = 8
"""Random labellings beside the labels themselves."""


@dataclass(frozen=True)
class Observation:
    """How objects are observed.

    Attributes:
        images: About how many training images are read over all processes; None: all.
        matching: ``detected``: only objects that the model got right; ``all``: every one.
        background: Background cells as one more class: True, False, or ``auto``: where the data
            have one class only.
        seed: Seed of the background cells.
    """

    images: int | None = 512
    matching: Matching = "detected"
    background: Background = "auto"
    seed: int = 0


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
    """Copy to every rank the norm statistics of rank 0.

    DDP lets them drift apart, and does the same before every forward pass. A checkpoint holds
    those of rank 0 only: with anything else a resumed run would decide on other numbers.
    """
    if trainer.world_size == 1:
        return
    norms = norm_statistics(model)
    agreed = broadcast(trainer, [value.cpu() for value in norms])
    for value, first in zip(norms, agreed, strict=True):
        value.copy_(first)


def observe_objects(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    layers: Sequence[str],
    how: Observation,
    *,
    beside_chance: bool = False,
) -> ObjectActivations:
    """Collect the object activations of some layers from training images.

    Every process reads its part; all of them return the merged result. ``beside_chance``: with
    statistics under random labels.
    """
    agree_on_norms(trainer, pl_module)
    with forward_context(trainer):
        part = collect_activations(
            pl_module,
            collection_batches(trainer, pl_module, how.images),
            layers,
            samples_function(pl_module),
            forward_batch,
            objects_of=objects_function(pl_module),
            matching=how.matching,
            background=background_class(how.background, trainer, pl_module),
            seed=how.seed + trainer.global_rank,
            shuffles=_SHUFFLES if beside_chance else 0,
            warn=False,
        )
    return merge_activations(gather(trainer, part))


def observe_outputs(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    outputs: Mapping[str, LayerOutput],
    values_of: Callable[[Tensor], Tensor],
    images: int | None,
) -> dict[str, OutputMean]:
    """Average what is read of layer outputs over training images of all processes."""
    agree_on_norms(trainer, pl_module)
    with forward_context(trainer):
        batches = collection_batches(trainer, pl_module, images)
        part = collect_outputs(pl_module, batches, outputs, values_of, forward_batch)
    return merge_outputs(gather(trainer, part))
