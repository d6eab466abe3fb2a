"""Loads checkpoints of pruned models into classes that know nothing of pruning."""

import inspect
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch

from lightning_prune.surgery.architecture import RECORD, resize_to, track_architecture

Module = TypeVar("Module", bound=pl.LightningModule)


def load_pruned(
    lit_class: type[Module],
    path: str | Path,
    map_location: Any = "cpu",
    strict: bool = True,
    **hparams: Any,
) -> Module:
    """Load a Lightning checkpoint, pruned or dense, into any LightningModule class.

    A class that calls ``track_architecture(self)`` in ``__init__`` needs no more than its own
    ``load_from_checkpoint``; this serves all others. The module that comes back is tracked: its
    own checkpoints load the same way. Nothing pickled is executed.

    Args:
        lit_class: The class the checkpoint was written from.
        path: The checkpoint.
        map_location: As in ``torch.load``.
        strict: As in ``load_state_dict``.
        hparams: Constructor arguments that the checkpoint lacks, or that replace its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no Lightning checkpoint, or lacks arguments of the constructor.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is no Lightning checkpoint: it has no 'state_dict'")
    module = _build(lit_class, {**checkpoint.get("hyper_parameters", {}), **hparams}, path)
    track_architecture(module)
    module.on_load_checkpoint(checkpoint)
    state = dict(checkpoint["state_dict"])
    if RECORD not in state:
        # Written without a record (a foreign tool, or a file from before the cut was tracked):
        # the shapes are all there is to go by.
        resize_to(module, state)
    module.load_state_dict(state, strict=strict)
    return module


def _build(lit_class: type[Module], hparams: dict[str, Any], path: str | Path) -> Module:
    parameters = inspect.signature(lit_class.__init__).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {k: v for k, v in hparams.items() if takes_all or k in parameters}
    try:
        return lit_class(**known)
    except TypeError as error:
        raise ValueError(
            f"{lit_class.__name__} cannot be built from the hyper-parameters in {path} ({error}): "
            "pass the missing ones as keyword arguments, and call save_hyperparameters() in "
            "__init__ so that the next checkpoint has them"
        ) from error
