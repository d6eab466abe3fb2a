"""Load the weights of a file into a neural-response module, all of them or those of the core."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from lightning_prune.neural.network.gaussian_readout import GaussianReadout
from lightning_prune.runs.checkpoint.module_state import read_module_state

CORE = ("frontend", "convnet", "modulator")
"""Parts of the network that all sessions share."""
_READOUT = re.compile(r"network\.readouts\.(\d+)\.features\.weight")


def core_parts(network: nn.Module) -> list[nn.Module]:
    """Return the parts of the network that all sessions share."""
    return [network.get_submodule(name) for name in CORE]


def adopt(module: pl.LightningModule, path: Path) -> None:
    """Load a checkpoint of the same module, pruned or not, or its state dict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or is of another network.
    """
    _load(module, read_module_state(path), path)


def adopt_core(module: pl.LightningModule, path: Path) -> None:
    """Load the core of a file, as narrow as it was cut, and put fresh readouts on it.

    The file's own sessions, cells and readouts do not matter: they are left behind.

    Args:
        module: The module, with the cells of the new sessions.
        path: A checkpoint of such a module, pruned or not, or its state dict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or its core is of other settings.
    """
    state = read_module_state(path)
    readout = module.hparams["readout"]
    theirs = {**readout, "bias": "network.readouts.0.bias" in state}
    settings = {"cells": _cells(state, path), "readout": theirs, "freeze": None}
    donor = type(module)(**{**module.hparams, **settings})
    _load(donor, state, path)
    network: Any = module.network
    source: Any = donor.network
    for name in CORE:
        setattr(network, name, getattr(source, name))
    channels = source.readouts[0].features.in_channels
    network.readouts = nn.ModuleList(
        GaussianReadout(
            channels,
            cells,
            readout["bias"],
            readout["initial_std"],
            readout["initial_mean_scale"],
        )
        for cells in module.hparams["cells"]
    )


def _cells(state: Mapping[str, Tensor], path: Path) -> list[int]:
    """Return the number of cells of each session of a file."""
    found = {
        int(name[1]): value.shape[0]
        for key, value in state.items()
        if (name := _READOUT.fullmatch(key)) and value.ndim
    }
    if not found or sorted(found) != list(range(len(found))):
        raise ValueError(
            f"weights={path} are of another network (no readouts of sessions are in it): pass a "
            "checkpoint of NeuralResponseModule"
        )
    return [found[index] for index in range(len(found))]


def _load(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reasons = "; ".join(str(error).strip().splitlines()[1:3]).strip()
        raise ValueError(
            f"weights={path} are of another network ({reasons}): pass the settings that it "
            "was built with"
        ) from error
