"""Importances of torch-pruning, computed on the project's groups."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch_pruning.pruner import function

from lightning_prune.graph.channel_rows import channel_rows, weights_of
from lightning_prune.graph.group import Group, Member
from lightning_prune.graph.layer_kinds import is_depthwise
from lightning_prune.graph.names import modules_by_name

ImportanceKind = Literal["norm", "fpgm", "lamp", "taylor"]

MOST_COLUMNS = 8192
"""Columns of one consumer that FPGM compares with one another; their distances take 256 MiB."""

_IMPORTANCES: dict[str, Callable[[int], Any]] = {
    "norm": lambda p: tp.importance.GroupMagnitudeImportance(p=p, normalizer=None),
    "fpgm": lambda p: tp.importance.FPGMImportance(p=p, normalizer=None),
    "lamp": lambda p: tp.importance.LAMPImportance(p=p),
    "taylor": lambda _: tp.importance.GroupTaylorImportance(normalizer=None),
}


class _Item(NamedTuple):
    """What torch-pruning calls a dependency with its indices; it is unpacked as the first two."""

    dep: Any
    idxs: list[int]
    root_idxs: list[int]


class _Items(list[_Item]):
    """A group as torch-pruning's importances read it: iterated as pairs, indexed as items."""

    def __iter__(self) -> Iterator[Any]:
        return (tuple(item[:2]) for item in super().__iter__())


def group_importance(model: nn.Module, group: Group, kind: ImportanceKind, p: int = 2) -> Tensor:
    r"""Compute an importance of torch-pruning for every channel of a group.

    Every producer and consumer of the group adds its own, on its rows or columns w of a channel,
    and for ``norm`` and ``lamp`` every batch norm, on its scale; the group's is their mean:

    * ``norm``: :math:`\sum |w|^p`
    * ``fpgm``: sum of the Euclidean distances of :math:`|w|^p` to that of all other rows or
      columns; a consumer of n columns per channel and more than 8192 in all (VGG's flattened maps)
      is compared at each of the n positions by itself
    * ``lamp``: that of ``norm``, s, as :math:`s_c / \sum_{s_u \ge s_c} s_u`
    * ``taylor``: :math:`\sum |w \cdot \partial L / \partial w|`; frozen layers do not count

    Args:
        model: The live model; for ``taylor`` with gradients of the loss in ``.grad``.
        group: The group.
        kind: Which importance.
        p: 1 or 2, the exponent; not of ``taylor``.

    Returns:
        (C,) float64, larger = keep; zeros where the group's weights are all zero.

    Raises:
        ValueError: for ``taylor``, if no layer of the group has a gradient.

    Source: torch-pruning 1.6.1 (Fang et al., 2023, DepGraph, arXiv 2301.12900). FPGM: He, Liu,
    Wang, Hu, Yang, 2019, arXiv 1811.00250; LAMP: Lee, Park, Mo, Ahn, Shin, 2021, arXiv 2010.07611;
    Taylor: Molchanov, Mallya, Tyree, Frosio, Kautz, 2019, arXiv 1906.10771.

    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [3.0]]))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 3.0]]))
    >>> group = trace_groups(net, torch.zeros(1, 1))["0"]
    >>> group_importance(net, group, "norm").tolist()
    [1.0, 9.0]
    >>> group_importance(net, group, "lamp").tolist()
    [0.10000000149011612, 1.0]
    """
    modules = modules_by_name(model)
    items = _Items(
        item
        for member in group.members
        for item in _items(modules[member.layer], member, kind)
        if kind != "taylor" or item.dep.layer.weight.grad is not None
    )
    _start_with_whole(items, group.channels)
    if kind == "lamp" and not bool(_IMPORTANCES["norm"](p)(items).any()):
        return torch.zeros(group.channels, dtype=torch.float64)  # LAMP divides by their sum
    found: Tensor | None = _IMPORTANCES[kind](p)(items)
    if found is None:
        raise ValueError(
            f"no convolution or linear layer of group {group.name!r} has a gradient: Taylor "
            "importance needs the loss differentiated before, and layers that are not frozen"
        )
    # As long as torch-pruning's first item, which may be a consumer of many columns per channel.
    return found[: group.channels].detach().double().cpu()


def _start_with_whole(items: _Items, channels: int) -> None:
    """Put an item of all channels first: torch-pruning's result is as long as the first one."""
    if not items or len(items[0].idxs) >= channels:
        return
    whole = next((item for item in items if len(item.idxs) >= channels), None)
    if whole is None:
        none = _rows_layer(torch.zeros(channels, 1), None)
        own = Member("", "producer", torch.arange(channels), torch.arange(channels))
        whole = next(_items_of(none, function.prune_linear_out_channels, own, "norm"))
    else:
        items.remove(whole)
    items.insert(0, whole)


def _items(layer: nn.Module, member: Member, kind: ImportanceKind) -> Iterator[_Item]:
    """Yield a layer's part of a group, in as many items as its tensors and distances need."""
    if _is_known(layer, member):
        prune = _handler(layer, member)
        if prune is not None:
            yield from _items_of(layer, prune, member, kind)
        return
    for tensor, dim in weights_of(layer, member) if member.role != "carrier" else ():
        weight = layer.get_parameter(tensor)
        grad = None if weight.grad is None else channel_rows(weight.grad, dim)
        rows = _rows_layer(channel_rows(weight.detach(), dim), grad)
        yield from _items_of(rows, function.prune_linear_out_channels, member, kind)


def _is_known(layer: nn.Module, member: Member) -> bool:
    """Return whether torch-pruning reads the member's weights as they are meant."""
    if isinstance(layer, _ConvNd) and layer.groups == 1:
        dim = int(layer.transposed != (member.role == "consumer"))
        return ("weight", dim) in member.dims
    if isinstance(layer, nn.Linear):
        return ("weight", int(member.role == "consumer")) in member.dims
    return isinstance(layer, _BatchNorm) or is_depthwise(layer)


def _rows_layer(rows: Tensor, grad: Tensor | None) -> nn.Module:
    """Return a linear layer with these rows as its weight: torch-pruning reads layers only."""
    layer = nn.Linear(1, 1, bias=False, device="meta")
    layer.weight = nn.Parameter(rows.detach())
    layer.weight.grad = grad
    return layer


def _items_of(
    layer: nn.Module, prune: Any, member: Member, kind: ImportanceKind
) -> Iterator[_Item]:
    dep = SimpleNamespace(
        layer=layer, target=SimpleNamespace(module=layer), pruning_fn=prune, handler=prune
    )
    order = torch.argsort(member.index)  # Taylor sorts the indices and not their channels
    index, channel = member.index[order], member.channel[order]
    if kind != "fpgm" or len(index) <= MOST_COLUMNS:
        yield _Item(dep, index.tolist(), channel.tolist())
        return
    by_channel = torch.argsort(channel, stable=True)
    times = torch.bincount(channel)
    first = (times.cumsum(0) - times).repeat_interleave(times)
    nth = torch.empty_like(by_channel)
    nth[by_channel] = torch.arange(len(channel)) - first
    for n in range(int(times.max())):
        part = nth == n
        yield _Item(dep, index[part].tolist(), channel[part].tolist())


def _handler(layer: nn.Module, member: Member) -> Any:
    """Return the pruning function by which torch-pruning knows the role, None: without a say."""
    if is_depthwise(layer):
        return None
    if isinstance(layer, _BatchNorm):
        return function.prune_batchnorm_out_channels if layer.affine else None
    if member.role == "carrier":
        return None
    if isinstance(layer, nn.Linear):
        incoming, outgoing = function.prune_linear_in_channels, function.prune_linear_out_channels
    else:
        incoming, outgoing = function.prune_conv_in_channels, function.prune_conv_out_channels
    return outgoing if member.role == "producer" else incoming
