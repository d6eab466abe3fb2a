"""Groups whose widths have to follow one another, made one."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

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
    return _renamed(joined, [group.name for group in narrow], wide.name)


def states(group: Group, module: str, size: int, inside: bool) -> bool:
    """Return whether a module, or with ``inside`` one within it, states a size of a group."""
    return any(
        number.size == size
        and (module in number.modules if inside else number.modules[-1:] == (module,))
        for number in group.numbers
    )


def equal_widths(
    groups: Mapping[str, Group], module: str, suspects: Sequence[str], sizes: Collection[int]
) -> Iterator[tuple[dict[str, Group], list[str]]]:
    """Yield groups side by side, whose widths a module states with one number, joined into one.

    Args:
        groups: All groups.
        module: The module whose forward pass fails.
        suspects: The groups that have a part in it.
        sizes: The numbers.

    Yields:
        All groups then, and the suspects that are left.
    """
    held = [groups[name] for name in suspects]
    for size in sorted(sizes):
        same = [g for g in held if g.channels == size and states(g, module, size, inside=False)]
        if len(same) > 1 and _are_apart(same):
            first, *others = same
            names = [group.name for group in others]
            left = [name for name in suspects if name not in names]
            yield _joined(groups, first.name, couple(first, others), names), left


def multiples(
    groups: Mapping[str, Group],
    module: str,
    suspects: Sequence[str],
    kinds: Mapping[str, type[nn.Module]],
) -> Iterator[tuple[dict[str, Group], list[str]]]:
    """Yield groups in which the width of one follows that of factors of another's rows.

    Heads go with their part of a residual stream, in all modules of a kind that read the stream.

    Args:
        groups: All groups.
        module: The module whose forward pass fails.
        suspects: The groups that have a part in it.
        kinds: Class of every module.

    Yields:
        All groups then, and the name of the coupled one.
    """
    for wide in suspects:
        whole = groups[wide]
        taking = {m.layer for m in whole.members}
        for name in suspects:
            narrow = groups[name]
            count = narrow.channels
            if name == wide or not _has_several_rows(narrow):
                continue
            if not any(number.modules[-1:] == (module,) for number in narrow.numbers):
                continue
            if whole.channels % count:
                continue
            if whole.channels == count and not _has_several_rows(whole):
                continue  # else it is coupled with heads of another kind already
            same = [
                other
                for other, group in groups.items()
                if other != wide
                and group.channels == count
                and any(
                    n.modules
                    and kinds.get(n.modules[-1]) is kinds[module]
                    and any(layer.startswith(f"{n.modules[-1]}.") for layer in taking)
                    for n in group.numbers
                )
            ]
            held = [groups[other] for other in same]
            if held and _are_apart([whole, *held]):
                yield _joined(groups, wide, couple(whole, held), same), [wide]


def _joined(
    groups: Mapping[str, Group], name: str, joined: Group, names: Sequence[str]
) -> dict[str, Group]:
    return {
        own: joined if own == name else _renamed(group, names, name)
        for own, group in groups.items()
        if own not in names
    }


def _has_several_rows(group: Group) -> bool:
    """Return whether some layer makes several rows of each channel: of each head, its width."""
    return any(m.role == "producer" and len(m.index) > group.channels for m in group.members)


def _are_apart(groups: Sequence[Group]) -> bool:
    """Return whether no two groups make channels on the same axes: they are no factors."""
    axes = [
        {(m.layer, *dims) for m in group.members if m.role == "producer" for dims in m.dims}
        for group in groups
    ]
    return sum(map(len, axes)) == len(set().union(*axes))


def _renamed(group: Group, names: Sequence[str], name: str) -> Group:
    """Name one group in place of others in what a group says of products."""
    return replace(
        group,
        products=tuple(
            (fraction, tuple(name if own in names else own for own in factors))
            for fraction, factors in group.products
        ),
    )
