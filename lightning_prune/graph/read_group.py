"""Reads one channel group out of torch-pruning's dependency graph."""

from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning import ops

from lightning_prune.graph.dependents import Dependent, dependents
from lightning_prune.graph.group import Member
from lightning_prune.graph.layers import (
    Role,
    channel_dims,
    is_producer,
    why_unprunable,
    width_of,
)

_FIXED_SIZES = (ops.OPTYPE.SPLIT, ops.OPTYPE.SLICE, ops.OPTYPE.UNBIND)
_REACHES_OUTPUT = "its channels reach the output of the model"


def _reaches_output(node: Any) -> bool:
    """Follow channels from a node through everything that does not mix them."""
    stack, seen = [node], set()
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if current is not node and is_producer(current.module):
            continue
        if current.type == ops.OPTYPE.OUTPUT or not current.outputs:
            return True
        stack.extend(current.outputs)
    return False


def _role(graph: tp.DependencyGraph, dep: Any) -> Role | None:
    module = dep.target.module
    if isinstance(module, nn.Parameter):
        return "carrier"
    if not any(True for _ in module.parameters(recurse=False)) and not any(
        True for _ in module.buffers(recurse=False)
    ):
        return None
    if not is_producer(module):
        return "carrier"
    return "consumer" if graph.is_in_channel_pruning_fn(dep.handler) else "producer"


def _places(layer: nn.Module, role: Role) -> int:
    """Return how many positions a layer has for the channels of a group."""
    sizes = [getattr(layer, name).shape[dim] for name, dim in channel_dims(layer, role)]
    return max(sizes, default=1 << 62)


def read_group(
    graph: tp.DependencyGraph, root: nn.Module, names: dict[Any, str]
) -> tuple[list[Member], list[str]]:
    """Return the members of the group of a root, and the reasons against pruning it."""
    channels = width_of(root)
    members: list[Member] = []
    reasons: list[str] = []
    for item in dependents(graph, root, channels):
        role = _role(graph, item.dep)
        if _reaches_output(item.dep.target) and role != "consumer":
            reasons.append(_REACHES_OUTPUT)
        if item.dep.target.type in _FIXED_SIZES:
            reasons.insert(0, "its channels are split by chunk, split or a slice of a fixed size")
        if role is None:
            continue
        found = _member(item, role, channels, names.get(item.dep.target.module, ""))
        if isinstance(found, str):
            reasons.append(found)
        elif found is not None:
            members.append(found)
    return members, reasons


def _member(item: Dependent, role: Role, channels: int, name: str) -> Member | str | None:
    """Return a layer's part of a group, the reason against it, or None where it has none."""
    module, name = item.dep.target.module, name or "a bare parameter"
    if isinstance(module, nn.Parameter):
        return f"{name} of shape {tuple(module.shape)} belongs to no known layer"
    against = why_unprunable(module, role)
    if against is not None:
        return f"{name}: {against}"
    places = _places(module, role)
    if role != "consumer" and channels > 1 and places == 1:
        return None  # one channel that is spread over all: it has nothing to cut
    if role == "producer" and channels == 1 and places > 1:
        return "its one channel is spread over many others"
    if role != "consumer" and item.channel.unique().tolist() != list(range(channels)):
        return f"{name} does not have the {channels} channels of its group"
    if int(item.index.max()) >= places:
        return f"{name} has {places} channels where its group would have more"
    return Member(name, role, item.index, item.channel)
