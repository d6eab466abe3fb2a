"""Files of a module that no Trainer holds: a checkpoint, and its weights alone."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl

from lightning_prune.files import write_bytes
from lightning_prune.files.safetensors_bytes import safetensors_bytes
from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO


def write_checkpoint(module: pl.LightningModule, path: Path) -> None:
    """Write a Lightning checkpoint of a module: weights and hyper-parameters, no optimizer.

    Args:
        module: The module; cut ones are read again by ``load_pruned``.
        path: The file; it is whole or not there.
    """
    with _quiet():
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False, plugins=[AtomicCheckpointIO()],
        )  # fmt: skip
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what a Trainer says of GPUs and loggers that nobody wants."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def write_weights(module: pl.LightningModule, path: Path, names: Sequence[str] = ()) -> None:
    """Write the state dict of a module as ``.safetensors``: nothing is in it but numbers.

    The architecture of a cut module goes with it as one more tensor.

    Args:
        module: The module.
        path: The file; it is whole or not there.
        names: Class names, for the file's metadata.
    """
    write_bytes(path, safetensors_bytes(module.state_dict(), names))
