"""The channel groups as text, for a log."""

from collections.abc import Sequence

from torch import nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layer_kinds import is_depthwise, is_producer
from lightning_prune.graph.names import modules_by_name

_RULE = "*" * 13


def group_listing(model: nn.Module, groups: ChannelGroups, names: Sequence[str]) -> str:
    """Return the groups that are pruned, each with the layers that shrink with its source.

    Norms and activations are left out: convolutions and linear layers say enough.

    Args:
        model: The model.
        groups: All groups of a model.
        names: The groups that are pruned.

    >>> import torch
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> print(group_listing(net, trace_groups(net, torch.zeros(1, 3, 4, 4)), ["0"]))
    *************
    Group number 1:
    Source conv: 0
    Dependencies:
    2
    *************
    <BLANKLINE>
    There are 1 groups of layers, with the following source convs:
    ['0']
    """
    modules = modules_by_name(model)
    lines = []
    for number, name in enumerate(names, 1):
        root = groups[name].root
        members = dict.fromkeys(member.layer for member in groups[name].members)
        tied = [
            layer
            for layer in members
            if layer != root and (is_producer(modules[layer]) or is_depthwise(modules[layer]))
        ]
        lines += [_RULE, f"Group number {number}:", f"Source conv: {name}", "Dependencies:", *tied]
    summary = f"There are {len(names)} groups of layers, with the following source convs:"
    return "\n".join([*lines, _RULE, "", summary, str(list(names))])
