"""How a Trainer moves batches and runs forward passes and steps."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor
from torch.optim import Optimizer


def on_device(trainer: pl.Trainer, batches: Iterable[Any]) -> Iterator[Any]:
    """Move batches to the device and the precision that the Trainer itself gives them."""
    module = trainer.lightning_module
    for batch in batches:
        converted = trainer.precision_plugin.convert_input(batch)
        yield trainer.strategy.batch_to_device(
            module._on_before_batch_transfer(converted, dataloader_idx=0)
        )


def forward_context(trainer: pl.Trainer) -> Any:
    """Return the context in which the Trainer's precision runs a forward pass."""
    return trainer.precision_plugin.val_step_context()


def loss_scale(trainer: pl.Trainer, optimizer: Optimizer) -> Tensor | None:
    """Return the factor that gradients still carry before a step; None: none.

    Fused optimizers divide by the gradient scaler's factor themselves, within their step.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    # On the device: reading the number would wait for the backward pass.
    scale: Tensor | None = scaler._get_scale_async()
    return scale


@contextmanager
def training_context(trainer: pl.Trainer) -> Iterator[None]:
    """Run training steps aside: nothing is logged, autocast is off (float16 loses gradients)."""
    module = trainer.lightning_module
    with silent(trainer, [module]), torch.autocast(module.device.type, enabled=False):
        yield


@contextmanager
def silent(trainer: pl.Trainer, modules: Sequence[pl.LightningModule]) -> Iterator[None]:
    """Run training steps, in the Trainer's precision, of which nothing is logged."""
    loggers = trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    for module in modules:
        for name in ("log", "log_dict"):
            object.__setattr__(module, name, lambda *_, **__: None)
    try:
        with trainer.precision_plugin.train_step_context():
            yield
    finally:
        trainer.loggers = loggers
        for module in modules:
            for name in ("log", "log_dict"):
                object.__delattr__(module, name)
