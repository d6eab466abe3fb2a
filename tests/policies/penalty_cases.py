"""Channel penalties by plain loops, and torch-pruning's, as references."""

import warnings
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.layer_kinds import is_depthwise

Weights = list[tuple[nn.Module, int, int]]


def zero_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def channel_weights(model: nn.Module, group: Group, channel: int) -> Weights:
    """List (layer, dimension, position) of every weight of one channel."""
    found = []
    for member in group.members:
        layer = model.get_submodule(member.layer)
        if is_depthwise(layer) or isinstance(layer, nn.PReLU):
            continue
        transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
        dim = {"producer": 0, "carrier": 0, "consumer": 1}[member.role]
        if transposed:
            dim = 1 - dim
        for index, owner in zip(member.index.tolist(), member.channel.tolist(), strict=True):
            if owner == channel:
                found.append((layer, dim, index))
    return found


def norms_by_loop(model: nn.Module, group: Group) -> list[float]:
    found = []
    for channel in range(group.channels):
        parts = [
            layer.weight.detach().double().select(dim, index).flatten()
            for layer, dim, index in channel_weights(model, group, channel)
        ]
        found.append(float(torch.cat(parts).square().mean().sqrt()))
    return found


def penalty_by_loop(
    model: nn.Module,
    groups: ChannelGroups,
    strength: dict[str, float],
    alpha: float,
    active: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of every parameter in float64: group by group, weight by weight."""
    grads = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in model.named_parameters()}
    names = {module: name for name, module in model.named_modules()}
    for name, group in groups.items():
        if name not in strength:
            continue
        norms = norms_by_loop(model, group)
        alive = [k for k in range(group.channels) if active is None or bool(active[name][k])]
        high, low = max(norms[k] for k in alive), min(norms[k] for k in alive)
        for k in alive:
            s = 2 ** (alpha * (high - norms[k]) / (high - low)) if high > low else 1.0
            for layer, dim, index in channel_weights(model, group, k):
                weight = layer.weight.detach().double().select(dim, index)
                grad = grads[f"{names[layer]}.weight"].select(dim, index)
                grad += strength[name] * s * weight
    return grads


def torch_pruning_pruner(
    kind: Any, model: nn.Module, example: Tensor, groups: ChannelGroups, **options: Any
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            ignored_layers=[model.get_submodule(name) for name in groups.refused],
            **options,
        )
