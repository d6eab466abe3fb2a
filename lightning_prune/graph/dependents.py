"""Which layers hold the channels of a root, followed through torch-pruning's graph in bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency import index_mapping

MOST_PAIRS = 4_000_000
"""(position, channel) pairs followed for one root: VGG's flattened maps take 200 thousand."""
MOST_POSITIONS = 1 << 24
"""Positions of one layer: indices that go round in circles grow without bound."""
MOST_LOOKUPS = 3_000_000
"""Layers asked for their width while a graph is built; DenseNet-201 takes 100 thousand."""


class UnboundedError(RuntimeError):
    """The channels of a layer are mapped to and fro without an end."""


class BoundedGraph(tp.DependencyGraph):  # type: ignore[misc]
    """torch-pruning's dependency graph, whose search for widths ends."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups = 0

    def _count(self) -> None:
        self._lookups += 1
        if self._lookups > MOST_LOOKUPS:
            raise UnboundedError("the search for the widths of its layers does not end")

    def get_out_channels(self, module_or_node: Any) -> Any:
        """Return the number of output channels of a layer."""
        self._count()
        return super().get_out_channels(module_or_node)

    def get_in_channels(self, module_or_node: Any) -> Any:
        """Return the number of input channels of a layer."""
        self._count()
        return super().get_in_channels(module_or_node)


@dataclass(frozen=True)
class Dependent:
    """A layer that holds channels of the root.

    Attributes:
        dep: Torch-pruning's dependency, with ``target`` and ``handler``.
        index: (n,) int64, positions in the layer; one that holds two channels is there twice.
        channel: (n,) int64, the root's channel at each of these positions.
    """

    dep: Any
    index: Tensor
    channel: Tensor


def dependents(graph: tp.DependencyGraph, root: nn.Module, channels: int) -> list[Dependent]:
    """Follow all channels of a root to the layers that must be cut with it, in bounds.

    What torch-pruning's ``get_pruning_group`` finds, each pair of a position and a channel
    followed once.

    Args:
        graph: The graph of the model.
        root: The layer that makes the channels.
        channels: Number of its channels C.

    Raises:
        UnboundedError: the positions go round in circles.
    """
    start = graph.module2node[root]
    prune = graph.get_pruner_of_module(root).prune_out_channels
    first = torch.arange(channels)
    found: dict[tuple[Any, Any], Tensor] = {(start, prune): first * channels + first}
    deps = {(start, prune): tp.Dependency(prune, prune, start, start)}
    stack = [((start, prune), found[start, prune])]
    spent = 0
    while stack:
        (node, handler), codes = stack.pop()
        for dep in node.dependencies:
            if not dep.is_triggered_by(handler):
                continue
            mapped = _mapped(dep, codes, channels)
            key = (dep.target, dep.handler)
            deps.setdefault(key, dep)
            known = found.get(key)
            new = mapped if known is None else mapped[~torch.isin(mapped, known)]
            if not len(new):
                continue
            found[key] = new if known is None else torch.cat([known, new])
            stack.append((key, new))
            spent += len(new)
            if spent > MOST_PAIRS:
                raise UnboundedError(
                    "its channels are mapped to and fro by views, rolls, chunks or concatenations "
                    "without an end"
                )
    return [
        Dependent(deps[key], codes // channels, codes % channels) for key, codes in found.items()
    ]


def _mapped(dep: Any, codes: Tensor, channels: int) -> Tensor:
    """Carry pairs, coded as position * C + channel, along a dependency."""
    index, channel = codes // channels, codes % channels
    for mapping in dep.index_mapping:
        if mapping is not None:
            index, channel = _map(mapping, index, channel)
    if len(index) and (int(index.max()) >= MOST_POSITIONS or int(index.min()) < 0):
        raise UnboundedError("views or expansions count its channels without an end")
    merged: Tensor = torch.unique(index * channels + channel)
    return merged


def _map(mapping: Any, index: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
    kind = type(mapping)
    if kind not in _MAPS:
        raise UnboundedError(f"it is expanded in a way that is not followed ({kind.__name__})")
    return _MAPS[kind](mapping, index, channel)


def _flatten(mapping: Any, index: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
    stride: int = mapping._stride
    if mapping.reverse:
        return index // stride, channel
    if len(index) * stride > MOST_PAIRS:
        raise UnboundedError("views multiply its channels without an end")
    spread = index[:, None] * stride + torch.arange(stride)
    return spread.flatten(), channel.repeat_interleave(stride)


def _shift(into: bool) -> Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]:
    def shift(mapping: Any, index: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        start, end = mapping.offset[0], mapping.offset[1]
        if mapping.reverse is into:
            return index + start, channel
        inside = (index >= start) & (index < end)
        return index[inside] - start, channel[inside]

    return shift


def _slice(mapping: Any, index: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
    start, step, end = mapping.start, mapping.step, mapping.end
    if mapping.reverse:
        return index * step + start, channel
    inside = (index >= start) & (index < end) & ((index - start) % step == 0)
    return (index[inside] - start) // step, channel[inside]


_MAPS: dict[type, Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    index_mapping._FlattenIndexMapping: _flatten,
    index_mapping._ConcatIndexMapping: _shift(into=False),
    index_mapping._SplitIndexMapping: _shift(into=True),
    index_mapping._SliceIndexMapping: _slice,
}
