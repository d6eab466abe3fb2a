"""Queries whose scores are divided by the root of their width: which rows, found by trying."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_prune.graph.group import Group, Member, Scaled
from lightning_prune.surgery.silent_sizes import Judge

_FUSED = (3, 2)  # queries, keys and values in one layer; two of them
_HOPELESS = 3  # groups in a row that nothing helps
_Way = tuple[int, int, bool]


def with_scaled_queries(
    groups: Mapping[str, Group], names: Sequence[str], is_right: Judge
) -> dict[str, Group]:
    r"""Return groups whose cut is right once rows of queries are scaled.

    Attention computes :math:`q k^T / \sqrt d` with the width d that a head has. Of C channels w
    stay: :math:`\sqrt{w / C}` in the queries (or in the keys, which gives the same scores) makes
    it :math:`q k^T / \sqrt C` again, what the masked network computes.

    Args:
        groups: Groups by name.
        names: Those whose cut gives something else than the mask.
        is_right: Whether one of some groups can be cut.
    """
    multiplied = {name for group in groups.values() for _, own in group.products for name in own}
    found: dict[str, Group] = {}
    learned: dict[_Way, None] = {}
    hopeless = 0
    for name in names:
        if name not in multiplied or hopeless == _HOPELESS:
            continue
        ways = dict(_ways(groups[name]))
        for way in sorted(ways, key=lambda way: way not in learned):
            group = replace(groups[name], scaled=(*groups[name].scaled, ways[way]))
            if is_right({**groups, name: group}, name):
                found[name] = group
                learned[way] = None
                break
        hopeless = 0 if name in found else hopeless + 1
    return found


def _ways(group: Group) -> Iterator[tuple[_Way, Scaled]]:
    """Yield the rows that may be queries: of a whole layer, or of a part of a fused one."""
    for place, member in enumerate(group.members):
        if member.role == "consumer" or not member.dims:
            continue
        yield (place, 1, True), Scaled(member.layer, member.dims, member.index)
        order = _ranks(member, group.channels)
        for parts in _FUSED:
            many = int(order.max()) + 1
            if many % parts == 0:
                # (3, heads, width), or (heads, 3, width)
                for blocks in (True, False):
                    first = order < many // parts if blocks else order % parts == 0
                    yield (
                        (place, parts, blocks),
                        Scaled(member.layer, member.dims, member.index[first]),
                    )


def _ranks(member: Member, channels: int) -> Tensor:
    """Return which of its channel's positions each position is, counted from 0."""
    ranks = torch.zeros_like(member.index)
    for channel in range(channels):
        own = torch.nonzero(member.channel == channel).flatten()
        ranks[own[member.index[own].argsort()]] = torch.arange(len(own))
    return ranks
