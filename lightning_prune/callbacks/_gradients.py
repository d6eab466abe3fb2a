"""Gradients of the loss of ``training_step``, leaving no trace in a run."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_prune.callbacks._data import collection_batches
from lightning_prune.callbacks.trainer.precision import training_context
from lightning_prune.engine.loss_gradients import loss_gradients as engine_gradients
from lightning_prune.runs.trainer.ranks import total


def loss_gradients(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    images: int | None,
    each: Callable[[], None] | None = None,
) -> AbstractContextManager[None]:
    """Hold in parameters' ``.grad`` the gradient of the training loss, then that from before.

    The module's ``training_step`` runs on about ``images`` training images of all processes, each
    batch weighted by its number of images. Modes, buffers, metrics, random states and the gradients
    that were there are those from before afterwards.

    Args:
        trainer: The running Trainer.
        pl_module: Its module.
        images: Number of training images of all processes; None: all.
        each: Called after every batch, while ``.grad`` holds the gradient of its loss alone.

    Raises:
        TypeError: ``training_step`` returns no loss.
    """
    return engine_gradients(
        pl_module,
        collection_batches(trainer, pl_module, images),
        lambda batch, number: _loss(pl_module.training_step(batch, number)),
        _aside(trainer, pl_module),
        each,
        partial(total, trainer),
    )


def _loss(output: Any) -> Tensor | None:
    loss = output["loss"] if isinstance(output, dict) else output
    if loss is not None and not isinstance(loss, Tensor):
        raise TypeError(
            f"training_step returned a {type(loss).__name__}: criteria that use gradients need the "
            "loss, a tensor or a dict with 'loss'"
        )
    return loss


@contextmanager
def _aside(trainer: pl.Trainer, model: nn.Module) -> Iterator[None]:
    """Run training steps aside, and restore the states of metrics."""
    metrics = [
        (metric, {name: copy.deepcopy(getattr(metric, name)) for name in _state_names(metric)})
        for metric in model.modules()
        if isinstance(metric, Metric)
    ]
    try:
        with training_context(trainer):
            yield
    finally:
        for metric, state in metrics:
            for name, value in state.items():
                setattr(metric, name, value)


def _state_names(metric: Metric) -> list[str]:
    return [*metric._defaults, "_update_count", "_computed"]
