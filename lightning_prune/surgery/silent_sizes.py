"""Numbers without which a cut network runs and is wrong, found by trying."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from torch import nn

from lightning_prune.graph.group import Group, Size
from lightning_prune.surgery.repair import candidates

_MOST_SIZES = 6
_MOST_TOGETHER = 2
_HOPELESS = 3  # groups in a row that nothing helps

Judge = Callable[[Mapping[str, Group], str], bool]


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
        for sizes in _proposals(model, groups[name], list(learned)):
            group = replace(groups[name], sizes=(*groups[name].sizes, *sizes))
            if is_right({**groups, name: group}, name):
                found[name] = group
                learned[tuple((size.attribute, size.place) for size in sizes)] = None
                break
        hopeless = 0 if name in found else hopeless + 1
    return found


def _proposals(
    model: nn.Module, group: Group, learned: Sequence[tuple[tuple[str, int | None], ...]]
) -> Iterator[tuple[Size, ...]]:
    """Yield sizes that may belong to a group, those that helped another one first."""
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
            yield some
    for many in range(1, _MOST_TOGETHER + 1):
        yield from combinations(known[:_MOST_SIZES], many)
