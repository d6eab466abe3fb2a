"""Loads checkpoints of pruned models into classes that know nothing of pruning."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.runs.checkpoint.lightning_content import check_lightning
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict

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
        CheckpointError: the file is no Lightning checkpoint, is torn or altered, or holds pickled
            objects.
        ValueError: the file lacks arguments of the constructor, or fits no cut of the class.
    """
    checkpoint = _read(Path(path), map_location)
    module = _build(lit_class, checkpoint, hparams, path)
    module.configure_model()
    track_architecture(module)
    module.on_load_checkpoint(checkpoint)
    state = checkpoint["state_dict"]
    load_pruned_state_dict(module, state, strict)
    device = next(_devices(state), None)
    return module if device is None else module.to(device)


def _read(path: Path, map_location: Any) -> dict[str, Any]:
    checkpoint = read_checkpoint(path, map_location)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(path, "no Lightning checkpoint: it has no 'state_dict'")
    try:
        return check_lightning(checkpoint)
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error


def _devices(state: Mapping[str, Any]) -> Iterator[torch.device]:
    return (v.device for v in state.values() if isinstance(v, Tensor) and v.is_floating_point())


def _build(
    lit_class: type[Module], checkpoint: dict[str, Any], given: dict[str, Any], path: str | Path
) -> Module:
    signature = inspect.signature(lit_class)
    saved = dict(checkpoint.get("hyper_parameters", {}))
    # Lightning flattens save_hyperparameters(config) and remembers the argument's name.
    name = checkpoint.get("hparams_name")
    saved = {name: saved} if name in signature.parameters else saved
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    arguments = {k: v for k, v in saved.items() if takes_all or k in signature.parameters} | given
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{lit_class.__name__} cannot be built from the hyper-parameters in {path} ({error}): "
            "pass the missing ones as keyword arguments, and call save_hyperparameters() in "
            "__init__ so that the next checkpoint has them"
        ) from error
    return lit_class(**arguments)
