"""One group out of several whose widths have to follow one another."""

import math
from collections.abc import Sequence
from dataclasses import replace

from lightning_prune.graph.group import Group


def couple(wide: Group, narrow: Sequence[Group]) -> Group:
    """Join groups of which one has a multiple of the others' channels into one.

    For code that takes the width of a residual stream for the number of heads times their width:
    channel i of the result is channel i of each narrow group, and the i-th block of channels of
    the wide one.

    >>> import torch
    >>> from lightning_prune.graph.group import Member
    >>> rows = torch.arange(4)
    >>> stream = Group("stem", 4, (Member("stem", "producer", rows, rows, (("weight", 0),)),))
    >>> heads = Group("qkv", 2, (Member("qkv", "producer", rows, rows // 2, (("weight", 0),)),))
    >>> both = couple(stream, [heads])
    >>> both.channels, [member.channel.tolist() for member in both.members]
    (2, [[0, 0, 1, 1], [0, 0, 1, 1]])
    """
    channels = narrow[0].channels
    block = wide.channels // channels
    members = [replace(m, channel=m.channel // block) for m in wide.members]
    norms = [replace(n, channel=n.channel // block) for n in wide.norms]
    for group in narrow:
        members += group.members
        norms += group.norms
    rank = {"producer": 0, "carrier": 1, "consumer": 2}
    members.sort(key=lambda member: rank[member.role])
    joined = replace(
        wide,
        channels=channels,
        members=tuple(members),
        bundle=wide.bundle * block,
        numbers=(*wide.numbers, *(n for group in narrow for n in group.numbers)),
        sizes=tuple(dict.fromkeys((*wide.sizes, *(s for group in narrow for s in group.sizes)))),
        norms=tuple(norms),
        mixed_by=tuple(
            dict.fromkeys((*wide.mixed_by, *(m for group in narrow for m in group.mixed_by)))
        ),
        step=math.lcm(wide.step, *(group.step for group in narrow)),
        products=tuple(p for group in (wide, *narrow) for p in group.products),
        scaled=tuple(rows for group in (wide, *narrow) for rows in group.scaled),
        scores=(
            *(replace(pairs, channel=pairs.channel // block) for pairs in wide.scores),
            *(pairs for group in narrow for pairs in group.scores),
        ),
    )
    return renamed(joined, [group.name for group in narrow], wide.name)


def renamed(group: Group, names: Sequence[str], name: str) -> Group:
    """Name one group in place of others in what a group says of products."""
    return replace(
        group,
        products=tuple(
            (fraction, tuple(name if own in names else own for own in factors))
            for fraction, factors in group.products
        ),
    )
