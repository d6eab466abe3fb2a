"""Slices and expansions over space and time, which torch-pruning takes for some of channels."""

from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning import ops

from lightning_prune.graph.layers import is_producer, width_of


def undo_spatial_mappings(graph: tp.DependencyGraph) -> None:
    """Patch torch-pruning to pass channels through what it takes for a selection of channels.

    It reads every slice as one of channels, and every expansion of five axes as one of attention
    heads. Those over space and time, with the channels in their place, are elementwise for a group.

    Args:
        graph: A graph that was built.
    """
    nodes = [node for node in graph.module2node.values() if _leaves_channels_alone(node)]
    for node in nodes:
        own = list(node.dependencies)
        for source in node.inputs:
            own += [dep for dep in source.dependencies if dep.target is node]
        for dep in own:
            if dep.target in node.inputs or dep.target is node:
                dep.index_mapping[0] = None
        node.type = ops.OPTYPE.ELEMENTWISE


def _makers(node: Any) -> list[nn.Module]:
    """Return the layers that made the channels at a node: the nearest before it."""
    stack, seen, found = list(node.inputs), set(), []
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if is_producer(current.module):
            found.append(current.module)
        else:
            stack.extend(current.inputs)
    return found


def _leaves_channels_alone(node: Any) -> bool:
    """Return whether a slice or an expansion goes over axes behind that of the channels, 1."""
    if node.type not in (ops.OPTYPE.SLICE, ops.OPTYPE.EXPAND):
        return False
    sizes: list[int] = list(getattr(node.grad_fn, "_saved_self_sym_sizes", ()))
    if len(sizes) < 3 or (node.type == ops.OPTYPE.SLICE and not 2 <= node.module.dim < len(sizes)):
        return False
    widths = [width_of(layer) for layer in _makers(node)]
    return sizes[1] in {*widths, sum(widths)}
