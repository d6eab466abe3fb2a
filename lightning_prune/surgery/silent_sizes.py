"""Numbers without which a cut network runs and is wrong, found by trying."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product

from torch import nn

from lightning_prune.graph.group import Group, Size
from lightning_prune.surgery.repair import candidates, size_of
from lightning_prune.surgery.scaled_queries import Judge, ways_to_scale

_MOST_SIZES = 6
_MOST_TOGETHER = 2
_HOPELESS = 3  # groups in a row that nothing helps


def with_silent_sizes(
    model: nn.Module, groups: Mapping[str, Group], names: Sequence[str], is_right: Judge
) -> dict[str, Group]:
    """Return groups whose cut is right once numbers in modules change with it.

    ``x.view(batch, tokens, self.heads, -1)`` takes any width: with fewer channels and as many heads
    it runs, and mixes the heads.

    Args:
        model: The dense copy.
        groups: Groups by name.
        names: Those whose cut gives something else than the mask.
        is_right: Whether one of some groups can be cut.
    """
    found: dict[str, Group] = {}
    learned: dict[tuple[tuple[str, int | None], ...], None] = {}
    hopeless = 0
    for name in names:
        if hopeless == _HOPELESS:
            break
        before = groups[name]
        scaled = [(), *ways_to_scale(before)] if before.scores else [()]
        for sizes, rows in product(_proposals(model, before, list(learned)), scaled):
            group = replace(before, sizes=sizes, scaled=rows)
            if is_right({**groups, name: group}, name):
                found[name] = group
                new = [size for size in sizes if size not in groups[name].sizes]
                learned[tuple((size.attribute, size.place) for size in new)] = None
                break
        hopeless = 0 if name in found else hopeless + 1
    return found


def _proposals(
    model: nn.Module, group: Group, learned: Sequence[tuple[tuple[str, int | None], ...]]
) -> Iterator[tuple[Size, ...]]:
    """Yield sizes that a group may have, those that helped another one first.

    Further ones, and others in place of one that was found where several are equal.
    """
    modules = dict.fromkeys(number.modules[-1] for number in group.numbers if number.modules)
    known = [
        size
        for module in modules
        for size in candidates(model, [group], module)
        if size not in group.sizes
    ]
    for names in learned:
        some = tuple(size for size in known if (size.attribute, size.place) in names)
        if some:
            yield (*group.sizes, *some)
    for many in range(1, _MOST_TOGETHER + 1):
        for some in combinations(known[:_MOST_SIZES], many):
            yield (*group.sizes, *some)
    for one in group.sizes:
        rest = tuple(size for size in group.sizes if size != one)
        for other in known:
            if other.layer == one.layer and size_of(model, other) == size_of(model, one):
                yield (*rest, other)
