"""A plain training loop, its configuration file and its data."""

import json
from pathlib import Path

import torch
from torch import nn

from lightning_prune.loop.pruning import Pruning
from tests.networks import Residual, make

CHANNEL = {
    "is_prune": True,
    "start_epoch": 1,
    "end_epoch": 5,
    "global_prune_rate": 0.5,
    "input_shape": [1, 3, 8, 8],
    "regularize": {"reg": 1e-3},
}
SLICE = {"is_prune": True, "block_size": 2, "start_epoch": 1, "end_epoch": 3, "prune_rate": 0.5}
OFF = {"is_prune": False}


def write(folder: Path, channel: dict | None = None, slices: dict | None = None) -> Path:
    """Write a pruning_config.json; what is not given is off."""
    content = {"channel_sparsity_args": channel or OFF, "slice_sparsity_args": slices or OFF}
    (folder / "pruning_config.json").write_text(json.dumps(content))
    return folder


def state_in(folder: Path) -> dict:
    """Return the channel section as the file has it now."""
    return json.loads((folder / "pruning_config.json").read_text())["channel_sparsity_args"]


def channel_pruning(folder: Path, model: nn.Module | None = None, **keys) -> Pruning:
    """Make a Pruning of channels alone, with some keys of the file other than usual."""
    model = make(Residual) if model is None else model
    return Pruning(model, write(folder, CHANNEL | keys), model.forward)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eight random images and classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.arange(8) % 4


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)


def train(model, pruner, epochs, optimizer=None, steps=3, log=None, each_epoch=None):
    """The seed's loop: prune, make a new optimizer after the cut, penalties around the step."""
    optimizer = optimizer or sgd(model)
    for epoch in epochs:
        pruner.prune(model, epoch, log=log)
        if pruner.channel_pruner.reset_optimizer:
            optimizer = sgd(model)
            pruner.channel_pruner.reset_optimizer = False
        model.train()
        for step in range(steps):
            x, y = batch(10 * epoch + step)
            loss = nn.functional.cross_entropy(model(x), y)
            loss += pruner.slice_regularize(model)
            optimizer.zero_grad()
            loss.backward()
            pruner.channel_regularize(model)
            optimizer.step()
        if each_epoch is not None:
            each_epoch(epoch)
    return optimizer


def masked(pruner: Pruning) -> int:
    """Count the channels that are held at zero."""
    plan = pruner.channel_pruner.plan
    return sum(len(plan.removed(name)) for name in plan.keep)
