"""Reads channel groups out of torch-pruning's dependency graph."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.utils._pytree import tree_map

from lightning_prune.functional.named_tensors import named_tensors, unknown_types
from lightning_prune.graph.custom_layer import CustomLayer, custom_layers
from lightning_prune.graph.dependents import BoundedGraph
from lightning_prune.graph.expand import expand_group
from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.group import ChannelGroups, Group, Member
from lightning_prune.graph.layers import (
    Role,
    channel_dims,
    is_producer,
    why_unprunable,
    width_of,
)
from lightning_prune.graph.names import modules_by_name, plain_name
from lightning_prune.graph.proxies import proxies_in_place
from lightning_prune.graph.read_group import read_group
from lightning_prune.graph.spatial_mappings import undo_spatial_mappings
from lightning_prune.graph.traceable import check_traceable

# The forward pass itself has succeeded when these are caught: they come from the tracing.
_TRACING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_NO_INFLUENCE = "the output of the model does not depend on it"
_NOT_CALLED = (
    "the forward pass does not call it: another module takes its weight, or only training uses it"
)


def forward_order(model: nn.Module, run: Callable[[], Any]) -> tuple[str, ...]:
    """Return the names of the leaf layers in the order in which a forward pass ends them."""
    order: dict[str, None] = {}
    handles = [
        module.register_forward_hook(lambda *_, name=name: order.setdefault(plain_name(name)))
        for name, module in model.named_modules()
        # A layer whose weight is computed has children.
        if is_producer(module) or not any(True for _ in module.children())
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return tuple(order)


def _checked_order(
    model: nn.Module, example_input: Any, run: Callable[[nn.Module, Any], Any]
) -> tuple[str, ...]:
    """Return the order of the layers, or say what the forward pass failed on."""
    try:
        with torch.no_grad():
            return forward_order(model, lambda: run(model, example_input))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's code raises
        given = tree_map(lambda v: tuple(v.shape) if hasattr(v, "shape") else v, example_input)
        raise ValueError(
            f"the forward pass of {type(model).__name__} in eval mode fails on an example input "
            f"{given} ({type(error).__name__}: {error}): pass one that it takes (a tensor, or a "
            "tuple or dict of its arguments; a LightningModule's example_input_array)"
        ) from error


def _terminal_outputs(
    model: nn.Module, example_input: Any, forward: Callable[[nn.Module, Any], Any]
) -> list[torch.Tensor]:
    """Run the model and return the outputs of the layers from which its own output is computed.

    What comes after the last layers (decoding, losses, reshapes) is cut off here: it holds no
    channels to prune, and its concatenations over other axes would mislead the tracing.
    """
    tapped: dict[Any, torch.Tensor] = {}

    def tap(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.grad_fn is not None:
            # A product of its own: the output itself may be changed in place later.
            tapped[output.grad_fn] = output * 1

    handles = [m.register_forward_hook(tap) for m in model.modules() if is_producer(m)]
    try:
        output = forward(model, example_input)
    finally:
        for handle in handles:
            handle.remove()
    tensors = named_tensors(output).values()
    stack = [tensor.grad_fn for tensor in tensors]
    seen: set[Any] = set()
    terminal = []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in tapped:
            terminal.append(tapped[node])
        else:
            stack.extend(source for source, _ in node.next_functions)
    if not terminal and not tensors:
        kinds = ", ".join(unknown_types(output)) or type(output).__name__
        raise ValueError(
            f"no tensor is found in its output, of type {kinds}: let forward return tensors, "
            "lists, dicts, dataclasses or named tuples of them"
        )
    if not terminal:
        raise ValueError("its output does not depend on any layer in a differentiable way")
    return terminal


def _dependency_graph(
    model: nn.Module, example_input: Any, forward: Callable[[nn.Module, Any], Any]
) -> tp.DependencyGraph:
    for parameter in model.parameters():
        # torch-pruning follows autograd, so that a frozen layer would be invisible to it.
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = BoundedGraph().build_dependency(
            model,
            example_input,
            forward_fn=lambda net, example: _terminal_outputs(net, example, forward),
            # One slope for all channels: an activation like others, which layers may share.
            ignored_layers=[
                layer
                for layer in model.modules()
                if isinstance(layer, nn.PReLU) and layer.weight.numel() == 1
            ],
            verbose=False,
        )
    undo_spatial_mappings(graph)
    return graph


def _merge(members: list[Member], order: dict[str, int]) -> tuple[Member, ...]:
    """Join members that are the same layer in the same role; producers, carriers, consumers."""
    joined: dict[tuple[str, Role], Member] = {}
    for member in members:
        key = (member.layer, member.role)
        if key in joined:
            index = torch.cat([joined[key].index, member.index])
            channel = torch.cat([joined[key].channel, member.channel])
            pairs = torch.stack([index, channel]).unique(dim=1)
            member = replace(member, index=pairs[0], channel=pairs[1])
        joined[key] = member
    rank = {"producer": 0, "carrier": 1, "consumer": 2}
    return tuple(sorted(joined.values(), key=lambda m: (rank[m.role], order.get(m.layer, 1 << 30))))


def tied_layers(model: nn.Module) -> dict[str, str]:
    """Return the layers that share a parameter with another layer, with the reason."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(plain_name(name))
    return {
        name: f"{name} shares a parameter with {', '.join(n for n in shared if n != name)}"
        for shared in owners.values()
        if len(shared) > 1
        for name in shared
    }


def _unclear(group: Group) -> str | None:
    """Return which layer reads one of its positions from two channels of the group."""
    for member in group.members:
        if len(member.index.unique()) != len(member.index):
            return f"{member.layer} would mix channels of the group with one another"
    return None


def trace_groups(
    model: nn.Module,
    example_input: Any,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> ChannelGroups:
    """Find the channel groups of a network by tracing one forward pass; none is tried.

    ``surgery.build_groups`` tries them too, on a copy. The model is left as it was: mode,
    gradients, requires_grad, statistics and random state.

    Args:
        model: Any network of convolutions, linear layers and norms; frozen layers included.
        example_input: A tensor, or a tuple or dict of arguments.
        forward: How to call the model, ``forward(model, example_input)``; None for the plain call.

    Raises:
        ValueError: the network cannot be traced, or nothing in it can be pruned.

    Source: G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, 2023, DepGraph: Towards Any Structural
    Pruning, CVPR, arXiv 2301.12900 (through torch-pruning's dependency graph).

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> groups = trace_groups(net, torch.zeros(1, 3, 8, 8))
    >>> [(g.name, g.channels, g.layers("consumer")) for g in groups.values()]
    [('0', 8, ('3',))]
    >>> groups.refused
    {'3': 'its channels reach the output of the model'}
    """
    run = forward or call
    check_traceable(model)
    tied = tied_layers(model)
    custom = custom_layers(model)
    with untouched(model):
        model.eval()
        order = _checked_order(model, example_input, run)
        with proxies_in_place(model, custom):
            names: dict[Any, str] = {m: plain_name(name) for name, m in model.named_modules()}
            names |= {parameter: name for name, parameter in model.named_parameters()}
            try:
                graph = _dependency_graph(model, example_input, run)
            except _TRACING_ERRORS as error:
                raise ValueError(
                    f"the forward pass of {type(model).__name__} cannot be traced for pruning "
                    f"({type(error).__name__}: {error}): torch.chunk or split followed by cat, and "
                    "computed weights (weight_norm) are the usual causes; rewrite that block or "
                    "pass a `forward` that avoids it"
                ) from error
            blocks = {plain_name(name): layer for name, layer in custom.items()}
            found = _collect(graph, names, order, tied, blocks)
    return _with_dims(found, modules_by_name(model))


def _with_dims(found: ChannelGroups, modules: Mapping[str, nn.Module]) -> ChannelGroups:
    """Fill in which tensors hold the channels of each member: proxies have other ones."""
    groups = {
        name: replace(
            group,
            members=tuple(
                replace(m, dims=tuple(channel_dims(modules[m.layer], m.role)))
                for m in group.members
            ),
        )
        for name, group in found.groups.items()
    }
    return replace(found, groups=groups)


def _roots(order: tuple[str, ...], blocks: Mapping[str, CustomLayer]) -> Iterator[str]:
    """Return the layers of a forward pass in order, a custom layer in place of those inside it."""
    seen: set[str] = set()
    for name in order:
        outer = next((block for block in blocks if name.startswith(f"{block}.")), name)
        if outer not in seen:
            seen.add(outer)
            yield outer


def _collect(
    graph: tp.DependencyGraph,
    names: dict[Any, str],
    order: tuple[str, ...],
    tied: dict[str, str],
    blocks: Mapping[str, CustomLayer],
) -> ChannelGroups:
    position = {name: place for place, name in enumerate(order)}
    modules = dict(zip(names.values(), names, strict=True))
    groups: dict[str, Group] = {}
    refused: dict[str, str] = {}
    seen: set[str] = set()
    for name in _roots(order, blocks):
        layer = modules[name]
        if name in seen or not is_producer(layer):
            continue
        if layer not in graph.module2node:
            refused[name] = why_unprunable(layer, "producer") or _NO_INFLUENCE
            continue
        try:
            members, reasons = read_group(graph, layer, names)
        except _TRACING_ERRORS as error:
            members, reasons = [], [f"its channels cannot be followed: {error or repr(error)}"]
        seen.update(member.layer for member in members if member.role == "producer")
        seen.add(name)
        group, against = expand_group(Group(name, width_of(layer), tuple(members)), blocks)
        reasons += against
        group = _ordered(group, position)
        reasons += [tied[m.layer] for m in group.members if m.layer in tied]
        reasons += [text for text in [_unclear(group)] if text]
        if reasons:
            refused.update(dict.fromkeys((name, *group.producers), reasons[0]))
        elif not group.layers("consumer"):
            refused[name] = "nothing reads its channels"
        else:
            groups[group.name] = group
    made = {layer for group in groups.values() for layer in group.producers} | refused.keys()
    for name, layer in modules.items():
        # Every layer that makes channels is in a group, or is reported with the reason.
        custom = any(f"{name}.".startswith(f"{block}.") for block in blocks)
        if is_producer(layer) and name not in made and not custom:
            refused[name] = why_unprunable(layer, "producer") or (
                "it belongs to a layer that is refused" if name in order else _NOT_CALLED
            )
    return ChannelGroups(groups, refused, order)


def _ordered(group: Group, position: dict[str, int]) -> Group:
    """Merge and sort a group's members, and name it after the first layer that makes channels."""
    members = _merge(list(group.members), position)
    makers = [member.layer for member in members if member.role == "producer"]
    name = group.name if group.name in makers or not makers else makers[0]
    return replace(group, name=name, members=members)
