"""One training step of a copy of the module, aside from the run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_prune.callbacks._data import collection_loader
from lightning_prune.callbacks.trainer.precision import on_device, silent
from lightning_prune.graph.forward_pass import untouched

_FEW = 2  # samples: enough for batch norms


def training_step_of(
    trainer: pl.Trainer, pl_module: pl.LightningModule
) -> Callable[[nn.Module], Any] | None:
    """Return what runs ``training_step`` of a copy on a small batch; None where nothing can.

    Not under manual optimization, where a step would train, and not where the training data come
    as a stream, whose batches would be missing afterwards.
    """
    if not pl_module.automatic_optimization:
        return None
    with untouched(pl_module):
        batch = _small_batch(trainer, pl_module)
    if batch is None:
        return None

    def run(copy: nn.Module) -> Any:
        with _aside(trainer, copy):
            return copy.training_step(batch, 0)  # type: ignore[operator]

    return run


def _small_batch(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any | None:
    try:
        loader = collection_loader(trainer, pl_module)
    except TypeError:  # several loaders at once
        return None
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    length = len(loader.dataset)  # type: ignore[arg-type]
    few = min(_FEW, length, loader.batch_size or _FEW)
    if not few:
        return None
    small = DataLoader(loader.dataset, batch_size=few, collate_fn=loader.collate_fn)
    return next(iter(on_device(trainer, small)))


@contextmanager
def _aside(trainer: pl.Trainer, copy: nn.Module) -> Iterator[None]:
    """Set the Trainer that a copy may ask, and nothing to log to."""
    inner = [m for m in copy.modules() if isinstance(m, pl.LightningModule)]
    for module in inner:
        module._trainer = trainer
    try:
        with silent(trainer, inner):
            yield
    finally:
        for module in inner:
            module._trainer = None
