"""Whether the files of a run will be readable, as far as that is known before its first batch."""

from typing import Any
from weakref import WeakSet

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_prune.runs.checkpoint.plain_content import plain_content

_CHECKED: "WeakSet[pl.Trainer]" = WeakSet()


def check_hyper_parameters(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Inspect the hyper-parameters that every checkpoint of the run will hold.

    Raises:
        ValueError: ``AtomicCheckpointIO`` could not store one as a plain value. With Lightning's
            own writing it is a warning: such files can be read with ``weights_only=False``.
    """
    if trainer in _CHECKED:
        return
    _CHECKED.add(trainer)
    data = getattr(trainer, "datamodule", None)
    names = {"hyper_parameters": pl_module, "datamodule_hyper_parameters": data}
    plain = plain_content({name: _hparams(owner) for name, owner in names.items()})
    if isinstance(_innermost(trainer.strategy.checkpoint_io), AtomicCheckpointIO):
        if plain.refused:
            raise ValueError(f"checkpoints of this run: {plain.explain()}")
        return
    places = [*plain.refused, *plain.changed, *plain.quiet]
    if places:
        rank_zero_warn(
            f"checkpoints of this run will hold {', '.join(places)} as pickled objects, which are "
            "read with weights_only=False only: store plain values, or add AtomicCheckpointIO() to "
            "the Trainer's plugins, which converts most of them"
        )


def _hparams(owner: Any) -> Any:
    hparams = getattr(owner, "hparams", {})
    return dict(hparams) if isinstance(hparams, dict) else hparams


def _innermost(writer: Any) -> Any:
    while getattr(writer, "checkpoint_io", None) is not None:
        writer = writer.checkpoint_io
    return writer
