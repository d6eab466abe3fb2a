"""Gradients of the training loss at a moment between two epochs, leaving no trace."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_prune.callbacks._data import collection_batches
from lightning_prune.callbacks.trainer.precision import training_context
from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.model_inputs import batch_length
from lightning_prune.runs.trainer.ranks import total


@contextmanager
def loss_gradients(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    images: int | None,
    each: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Let every parameter's ``.grad`` hold the gradient of the training loss, then take it back.

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
    parameters = [p for p in pl_module.parameters() if p.requires_grad]
    before = [p.grad for p in parameters]
    try:
        sums: list[Tensor | None] = [None] * len(parameters)
        seen = 0
        with _restored(pl_module), untouched(pl_module), training_context(trainer):
            for number, batch in enumerate(collection_batches(trainer, pl_module, images)):
                for parameter in parameters:
                    parameter.grad = None
                loss = _loss(pl_module.training_step(batch, number))
                if loss is not None:
                    length = batch_length(batch)
                    loss.backward()
                    if each is not None:
                        each()
                    sums = [
                        _added(p.grad, before, length)
                        for p, before in zip(parameters, sums, strict=True)
                    ]
                    seen += length
        count = total(trainer, torch.tensor(float(seen), device=pl_module.device))
        for parameter, summed in zip(parameters, sums, strict=True):
            # DDP's ranks reduce the same parameters, whether or not each of them has a gradient.
            own = torch.zeros_like(parameter) if summed is None else summed
            parameter.grad = total(trainer, own) / count.clamp(min=1)
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def _added(gradient: Tensor | None, before: Tensor | None, times: int) -> Tensor | None:
    if gradient is None:
        return before
    return gradient * times if before is None else before.add_(gradient, alpha=times)


def _loss(output: Any) -> Tensor | None:
    loss = output["loss"] if isinstance(output, dict) else output
    if loss is not None and not isinstance(loss, Tensor):
        raise TypeError(
            f"training_step returned a {type(loss).__name__}: criteria that use gradients need the "
            "loss, a tensor or a dict with 'loss'"
        )
    return loss


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore buffers and the states of metrics."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    metrics = [
        (metric, {name: copy.deepcopy(getattr(metric, name)) for name in _state_names(metric)})
        for metric in model.modules()
        if isinstance(metric, Metric)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for metric, state in metrics:
            for name, value in state.items():
                setattr(metric, name, value)


def _state_names(metric: Metric) -> list[str]:
    return [*metric._defaults, "_update_count", "_computed"]
