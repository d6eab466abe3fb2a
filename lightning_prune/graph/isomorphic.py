"""Which groups have the same structure."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from lightning_prune.graph.group import ChannelGroups, Group, Member
from lightning_prune.graph.layer_kinds import is_depthwise
from lightning_prune.graph.names import modules_by_name

Structure = tuple[tuple[str, str, int], ...]
"""Role, kind of layer and number of each, sorted."""


def isomorphic_sets(
    model: nn.Module, groups: ChannelGroups, names: Sequence[str]
) -> tuple[int, ...]:
    """Number the sets of groups that have the same structure.

    Two groups are structurally equal when the same kinds of layers make, carry and read their
    channels, each as often; widths, kernel sizes and strides may differ, as in torch-pruning.

    Args:
        model: The model.
        groups: Its channel groups.
        names: G groups.

    Returns:
        G numbers of sets, counted from 0 in the order in which they appear.

    Source: Fang, Ma, Mi, Wang, 2024, Isomorphic Pruning for Vision Models, ECCV, arXiv 2407.04616.

    >>> import torch
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)), nn.Flatten(), nn.Linear(3, 2))
    >>> groups = trace_groups(net, torch.zeros(1, 3, 1, 1))
    >>> isomorphic_sets(net, groups, ["0", "1", "2", "3"])
    (0, 0, 0, 1)
    """
    modules = modules_by_name(model)
    numbers: dict[Structure, int] = {}
    return tuple(
        numbers.setdefault(_structure(groups[name], modules), len(numbers)) for name in names
    )


def _structure(group: Group, modules: dict[str, nn.Module]) -> Structure:
    parts: Counter[tuple[str, str]] = Counter()
    for member in group.members:
        layer = modules[member.layer]
        kind = type(layer).__name__ + (" depthwise" if is_depthwise(layer) else "")
        if member.role == "producer" and in_runs(member):
            kind += " in runs"
        parts[member.role, kind] += 1
    return tuple((role, kind, count) for (role, kind), count in sorted(parts.items()))


def in_runs(member: Member) -> bool:
    """Return whether neighbours belong to one channel, as heads do and the width of heads not."""
    order = torch.argsort(member.index)[:2]
    return len(order) > 1 and bool(member.channel[order[0]] == member.channel[order[1]])
