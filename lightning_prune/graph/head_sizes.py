"""How many heads attention has: a number in a layer that follows the width of a group."""

from collections.abc import Mapping

import torch
from torch import nn

from lightning_prune.graph.group import Group, Member, Size

_ROWS = ("in_proj_weight", "q_proj_weight", "k_proj_weight")


def head_sizes(modules: Mapping[str, nn.Module], group: Group) -> tuple[Size, ...]:
    """Return the ``num_heads`` of every ``nn.MultiheadAttention`` that follow a group's width.

    Those of a group whose channels are whole heads, or several whole heads; not those of a group
    whose channels are parts of each head.

    Args:
        modules: Every module by its name.
        group: A group of the network.

    >>> layer = nn.MultiheadAttention(8, num_heads=4)
    >>> rows, dims = torch.arange(24), (("in_proj_weight", 0),)
    >>> heads = Group("a", 4, (Member("a", "producer", rows, rows % 8 // 2, dims),))
    >>> width = Group("a", 2, (Member("a", "producer", rows, rows % 2, dims),))
    >>> head_sizes({"a": layer}, heads), head_sizes({"a": layer}, width)
    ((Size(layer='a', attribute='num_heads', place=None),), ())
    """
    found: dict[Size, None] = {}
    for member in group.members:
        layer = modules.get(member.layer)
        if isinstance(layer, nn.MultiheadAttention) and _is_of_heads(layer, member):
            found[Size(member.layer, "num_heads")] = None
    return tuple(found)


def _is_of_heads(layer: nn.MultiheadAttention, member: Member) -> bool:
    """Return whether a group's channel takes all rows of each head that it has rows of."""
    own = [name for name, dim in member.dims if name in _ROWS and dim == 0]
    if not own or not len(member.index):
        return False
    rows: int = getattr(layer, own[0]).shape[0]
    size = rows
    if own[0] == "in_proj_weight":
        size = (rows - layer.out_proj.weight.shape[1]) // 2
    queries = member.index < size
    index, channel = member.index[queries], member.channel[queries]
    if size % layer.num_heads or not len(index):
        return False
    width = size // layer.num_heads
    if width == 1:
        return True
    head = index // width
    heads = head.unique()
    counts = torch.bincount(head)[heads]
    first = torch.full((layer.num_heads,), -1, dtype=torch.int64).scatter_(0, head, channel)
    return bool((counts == width).all()) and bool((first[head] == channel).all())
