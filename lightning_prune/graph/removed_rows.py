"""Which positions of which tensors stay, given a plan: the one place that says it."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prune.graph.group import Group, Member
from lightning_prune.plan import PruningPlan


class Axis(NamedTuple):
    """A dimension of a tensor of a layer.

    Attributes:
        layer: Name of the layer.
        tensor: Name of the tensor in it.
        dim: The dimension.
    """

    layer: str
    tensor: str
    dim: int


def axes(groups: Mapping[str, Group]) -> dict[Axis, list[tuple[str, Member]]]:
    """Return who has channels on each axis: (name of the group, its member)."""
    found: dict[Axis, list[tuple[str, Member]]] = {}
    for name, group in groups.items():
        for member in group.members:
            for tensor, dim in member.dims:
                found.setdefault(Axis(member.layer, tensor, dim), []).append((name, member))
    return found


def removed_positions(member: Member, mask: Tensor) -> Tensor:
    """Return a member's positions that go where ``mask`` (C,) says which channels stay."""
    return member.index[~mask[member.channel]]


def removed_rows(groups: Mapping[str, Group], plan: PruningPlan) -> dict[Axis, Tensor]:
    """Return the positions of every axis that a plan removes, sorted.

    A position goes if any of the groups that have a channel there removes it: of groups that are
    factors of the same rows (heads, and the width of each head) the product stays.

    Args:
        groups: The channel groups of a model.
        plan: What stays.

    Raises:
        KeyError: the plan names a group that the model does not have.
        ValueError: the plan was made for another width.

    >>> rows = torch.arange(6)
    >>> heads = Group("qkv", 2, (Member("qkv", "producer", rows, rows // 3, (("weight", 0),)),))
    >>> width = Group("qkv:2", 3, (Member("qkv", "producer", rows, rows % 3, (("weight", 0),)),))
    >>> keep = {"qkv": torch.tensor([1]), "qkv:2": torch.tensor([0, 2])}
    >>> plan = PruningPlan(keep, {"qkv": 2, "qkv:2": 3})
    >>> found = removed_rows({"qkv": heads, "qkv:2": width}, plan)
    >>> {axis.tensor: index.tolist() for axis, index in found.items()}  # 3 and 5 stay
    {'weight': [0, 1, 2, 4]}
    """
    removed: dict[Axis, list[Tensor]] = {}
    for name in plan.keep:
        if name not in groups:
            raise KeyError(f"the plan names group {name!r}, which the model does not have")
        group = groups[name]
        if group.channels != plan.channels[name]:
            raise ValueError(
                f"the plan was made for {plan.channels[name]} channels of {name!r}, "
                f"the model has {group.channels}"
            )
        mask = plan.mask(name)
        for member in group.members:
            index = removed_positions(member, mask).unique()
            for tensor, dim in member.dims:
                removed.setdefault(Axis(member.layer, tensor, dim), []).append(index)
    return {
        axis: index[0] if len(index) == 1 else torch.cat(index).unique()
        for axis, index in removed.items()
    }


def kept_positions(size: int, removed: Tensor) -> Tensor:
    """Return the positions of an axis of some size that stay, sorted.

    >>> kept_positions(4, torch.tensor([0, 2])).tolist()
    [1, 3]
    """
    mask = torch.ones(size, dtype=torch.bool)
    mask[removed] = False
    return torch.nonzero(mask).flatten()


def tensor_name(layer: str, tensor: str) -> str:
    """Return the full name of a layer's tensor; the model itself is the layer ``""``.

    >>> tensor_name("fc", "weight"), tensor_name("", "positions")
    ('fc.weight', 'positions')
    """
    return f"{layer}.{tensor}" if layer else tensor
