"""Numbers in modules that have to change with a cut, found by trying."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import nn

from lightning_prune.graph.group import Group, Size
from lightning_prune.graph.names import layer_of, plain_name
from lightning_prune.surgery.coupling import equal_widths, multiples, states
from lightning_prune.surgery.cut_run import Failure
from lightning_prune.surgery.size_names import suits

_MOST_SIZES = 8
_MOST_TOGETHER = 3
_MOST_TRIED = 40  # changes in one module
_HOPELESS = 3  # modules of a kind in which nothing has helped


def candidates(model: nn.Module, groups: Iterable[Group], module: str) -> list[Size]:
    """Return the integers of a module that are equal to a size of channels of these groups.

    Only sizes that operations of this module, or of modules within it, state as numbers; and behind
    its own integers those of its children that are no layers: it may call their methods.
    """
    sizes = {
        number.size
        for group in groups
        for number in group.numbers
        if module in number.modules and number.size > 1
    }
    found: list[Size] = []
    whole, inside = model.get_submodule(module), f"{module}." if module else ""
    found += _attributes(whole, module, sizes)
    for name, part in whole.named_children():
        if not type(part).__module__.startswith("torch.nn"):
            found += _attributes(part, inside + name, sizes)
    return found


def _attributes(module: nn.Module, name: str, sizes: set[int]) -> Iterator[Size]:
    for key, value in vars(module).items():
        if key.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int) and value in sizes:
            yield Size(name, key)
        elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            # A torch.Size is what a forward pass has seen, and it sees the next one itself.
            for place, entry in enumerate(value):
                if isinstance(entry, int) and not isinstance(entry, bool) and entry in sizes:
                    yield Size(name, key, place)


def size_of(model: nn.Module, size: Size) -> int:
    """Return a number that a module holds."""
    value = getattr(model.get_submodule(size.layer), size.attribute)
    return int(value if size.place is None else value[size.place])


class Repair:
    """Finds, for groups whose cut makes a forward pass fail, what else has to change with them.

    Args:
        model: The dense copy.
        groups: The groups that are tried; ``Group.sizes`` grows.
        attempt: Cuts a copy by these groups and runs it.
        is_late: Whether the time is over.

    Attributes:
        groups: Those that can be cut, as far as passes show.
        refused: Group -> why it cannot.
        layers: Layer of a refused group, or of one that was joined to it -> why.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Mapping[str, Group],
        attempt: Callable[[Mapping[str, Group]], Failure | None],
        is_late: Callable[[], bool],
    ) -> None:
        self.groups = dict(groups)
        self.refused: dict[str, str] = {}
        self.layers: dict[str, str] = {}
        self._futile: dict[type[nn.Module], int] = {}
        self._alone: dict[type[nn.Module], bool] = {}  # whether a group fails by itself there
        self._model, self._attempt, self._is_late = model, attempt, is_late
        self._kinds = {plain_name(n): type(m) for n, m in model.named_modules()}

    def run(self) -> None:
        """Repair or refuse groups until a forward pass with all others cut ends, or time is up."""
        failure = self._attempt(self.groups)
        while failure is not None and self.groups:
            if self._is_late():
                return
            failure = self._solve(failure)

    def _solve(self, failure: Failure) -> Failure | None:
        """Get past a failure; return the next one, None where there is none."""
        nearest: list[str] = []
        for module in reversed(failure.modules):
            # Where a part is split off is often outside of the layer that cannot take it.
            suspects = self._stating(module) if nearest else self._suspects(module)
            nearest = nearest or suspects
            for change in self._new_changes(module, suspects) if suspects else ():
                found = self._attempt(change)
                if found is None or found.is_past(failure):
                    change = self._fewest(change, failure)
                    wide = self._spread(module, change)
                    found = self._attempt(wide)
                    if found is not None and not found.is_past(failure):
                        wide, found = change, self._attempt(change)
                    self.groups = wide
                    return found
        return self._drop(failure, nearest or list(self.groups))

    def _new_changes(self, module: str, suspects: Sequence[str]) -> Iterator[dict[str, Group]]:
        """Yield what may help in a module, as long as nothing else did in one of its kind."""
        kind = self._kinds[module]
        if self._futile.get(kind, 0) == _HOPELESS:
            return
        tried: set[frozenset[tuple[str, tuple[Size, ...]]]] = set()
        for change in self._changes(module, suspects):
            key = frozenset((name, group.sizes) for name, group in change.items())
            if key in tried:
                continue
            if len(tried) == _MOST_TRIED or self._is_late():
                break
            tried.add(key)
            yield change
        if tried:
            self._futile[kind] = self._futile.get(kind, 0) + 1

    def _fewest(self, change: dict[str, Group], failure: Failure) -> dict[str, Group]:
        """Leave out the sizes that a change does not need to get past a failure."""
        new = [
            (name, size)
            for name, group in change.items()
            for size in group.sizes
            if name not in self.groups or size not in self.groups[name].sizes
        ]
        for name, size in new if len(new) > 1 else ():
            group = change[name]
            sizes = tuple(own for own in group.sizes if own != size)
            less = {**change, name: replace(group, sizes=sizes)}
            found = self._attempt(less)
            if found is None or found.is_past(failure):
                change = less
        return change

    def _stating(self, module: str) -> list[str]:
        """Return the groups of which a module itself states a number."""
        return [
            name
            for name, group in self.groups.items()
            if any(number.modules[-1:] == (module,) for number in group.numbers)
        ]

    def _suspects(self, module: str) -> list[str]:
        """Return the groups that have a number or a tensor in a module."""
        inside = f"{module}." if module else ""
        stating = set(self._stating(module))
        return [
            name
            for name, group in self.groups.items()
            if name in stating
            or any(
                m.layer == module or (inside and m.layer.startswith(inside)) for m in group.members
            )
        ]

    # --- what is tried ----------------------------------------------------------------------

    def _changes(self, module: str, suspects: Sequence[str]) -> Iterator[dict[str, Group]]:
        """Yield groups with further sizes, then with groups coupled, to be tried."""
        held = [self.groups[name] for name in suspects]
        of_attributes = {size_of(self._model, s) for s in candidates(self._model, held, module)}
        for coupled, names in equal_widths(self.groups, module, suspects, of_attributes):
            yield from self._with_sizes(module, names, coupled)
        yield from self._with_sizes(module, suspects, self.groups)
        numbers = {n.size for group in held for n in group.numbers} - of_attributes
        for coupled, names in (
            *multiples(self.groups, module, suspects, self._kinds),
            *equal_widths(self.groups, module, suspects, numbers),
        ):
            yield coupled
            yield from self._with_sizes(module, names, coupled)

    def _with_sizes(
        self, module: str, suspects: Sequence[str], groups: Mapping[str, Group]
    ) -> Iterator[dict[str, Group]]:
        held = [groups[name] for name in suspects if name in groups]
        known = {size for group in held for size in group.sizes}
        found = [s for s in candidates(self._model, held, module) if s not in known]
        found = sorted(found, key=lambda size: not self._may_suit(size, held))[:_MOST_SIZES]
        order: list[frozenset[Size]] = [frozenset(found)] if found else []
        for many in range(1, min(_MOST_TOGETHER, len(found)) + 1):
            order += [frozenset(some) for some in combinations(found, many)]
        for sizes in dict.fromkeys(order):
            yield self._given(groups, held, sizes, module)
            if len(held) > 1:
                for one in held:
                    given = self._given(groups, [one], sizes, module)
                    if given[one.name] is not groups[one.name]:
                        yield given

    def _may_suit(self, size: Size, held: Sequence[Group]) -> bool:
        value = size_of(self._model, size)
        exact = [group for group in held if group.channels == value]
        return not exact or any(suits(size, group) for group in exact)

    def _given(
        self,
        groups: Mapping[str, Group],
        held: Sequence[Group],
        sizes: Iterable[Size],
        module: str,
    ) -> dict[str, Group]:
        """Assign each size to the groups of whose positions there are as many.

        Groups of which the module itself states the number come before those of modules inside, of
        those the ones that have as many channels, and of those the ones that its name suits.
        """
        new = dict(groups)
        for size in sizes:
            value = size_of(self._model, size)
            near = [g for g in held if states(g, module, value, inside=False)]
            far = [g for g in held if states(g, module, value, inside=True)]
            near = near or far
            exact = [g for g in near if g.channels == value]
            for group in [g for g in exact if suits(size, g)] or exact or near:
                now = new[group.name]
                if size not in now.sizes:
                    new[group.name] = replace(now, sizes=(*now.sizes, size))
        return new

    def _spread(self, module: str, change: Mapping[str, Group]) -> dict[str, Group]:
        """Do in all modules of a kind what helped in one."""
        groups = dict(change)
        learned = {
            (size.attribute, size.place)
            for name, group in change.items()
            for size in set(group.sizes) - set(self.groups[name].sizes)
        }
        kind = self._kinds[module]
        for other, its_kind in self._kinds.items():
            if its_kind is not kind:
                continue
            for size in candidates(self._model, groups.values(), other):
                if (size.attribute, size.place) not in learned:
                    continue
                value = size_of(self._model, size)
                named = [n for n, g in groups.items() if states(g, other, value, inside=False)]
                if len(named) == 1 and size not in groups[named[0]].sizes:
                    group = groups[named[0]]
                    groups[named[0]] = replace(group, sizes=(*group.sizes, size))
        return groups

    # --- what is left out -------------------------------------------------------------------

    def _drop(self, failure: Failure, suspects: Sequence[str]) -> Failure | None:
        """Refuse as few groups as get past a failure."""
        kind = self._kinds[failure.modules[-1]] if failure.modules else nn.Module
        order = sorted(suspects, key=lambda name: len(self.groups[name].members))
        for name in order:
            left = {n: g for n, g in self.groups.items() if n != name}
            found = self._attempt(left)
            if found is None or found.is_past(failure):
                if kind not in self._alone:
                    self._alone[kind] = self._attempt({name: self.groups[name]}) is not None
                others = "" if self._alone[kind] else "together with other groups, "
                self._refuse([name], others + failure.reason)
                return found
        for name in order:
            self._refuse([name], failure.reason)
            found = self._attempt(self.groups)
            if found is None or found.is_past(failure):
                return found
        return self._attempt(self.groups)

    def _refuse(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            group = self.groups.pop(name)
            self.refused[name] = reason
            self.layers |= dict.fromkeys(map(layer_of, group.producers), reason)
