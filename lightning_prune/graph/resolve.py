"""Groups of channels out of labels: positions that can only go together, by what they touch."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lightning_prune.graph.group import Group, Member, Number, Statistics
from lightning_prune.graph.labels import NONE, Axis, Ids, Labels
from lightning_prune.graph.lattices import Elements, components, pins_of, tie
from lightning_prune.graph.layers import Role

_RANK = {"producer": 0, "carrier": 1, "consumer": 2}
_FEWEST = 4  # outer factors (heads, groups) that are worth cutting where places can go instead
_NOTHING_READS = "nothing reads its channels"
_ONE = "its channels can only go all together"


@dataclass(frozen=True)
class Resolved:
    """Groups that labels demand.

    Attributes:
        groups: In the order of the forward pass.
        others: Name of a group -> groups of the same layers by their other factor.
        refused: Layer that makes channels -> why none of them can go.
    """

    groups: tuple[Group, ...]
    others: Mapping[str, tuple[Group, ...]]
    refused: Mapping[str, str]


@dataclass
class _Found:
    """The groups that one choice of factors gives, each with its component."""

    groups: dict[int, list[Group]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[int, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


def resolve(labels: Labels, order: Sequence[str]) -> Resolved:
    """Return the groups of channels that the labels of a traced pass demand.

    Where rows are a product of factors (heads and the width of each, groups of a convolution and
    the places in each) a cut must leave a rectangle, so that one factor is cut and rows are tied
    along the others. Whole heads in attention; else the outer factor where it has enough positions,
    or the inner one.

    Args:
        labels: What the trace has learned.
        order: Names of the layers in the order of the forward pass.
    """
    classes = labels.classes()
    pins = pins_of(labels, classes)
    parts = components(labels)
    table = _Table(labels, order)
    outer = table.groups(tie(labels, classes, pins, "outer"), parts)
    inner = table.groups(tie(labels, classes, pins, "inner"), parts) if labels.lattices else outer
    attention = {int(parts[own[0]]) for own in labels.products if len(own)}
    groups: list[Group] = []
    others: dict[str, tuple[Group, ...]] = {}
    refused: dict[str, str] = {}
    for part in sorted({*outer.groups, *inner.groups, *outer.refused, *inner.refused}):
        first, second = outer, inner
        if not _prefers_outer(outer.groups[part], inner.groups[part], part in attention):
            first, second = inner, outer
        groups += first.groups[part]
        refused |= {**second.refused[part], **first.refused[part]}
        if second.groups[part] and not _same(first.groups[part], second.groups[part]):
            for group in first.groups[part]:
                others[group.name] = tuple(second.groups[part])
    made = {layer for group in groups for layer in group.producers}
    left = {name: why for name, why in refused.items() if name not in made}
    place = {name: n for n, name in enumerate(table.first_made(groups))}
    groups.sort(key=lambda group: place[group.name])
    return Resolved(table.with_products(groups), others, left)


def _prefers_outer(outer: Sequence[Group], inner: Sequence[Group], attention: bool) -> bool:
    if not outer or not inner:
        return bool(outer) or not inner
    if attention:
        return True
    few = min(group.channels for group in outer)
    return few >= min(_FEWEST, min(group.channels for group in inner))


def _same(first: Sequence[Group], second: Sequence[Group]) -> bool:
    return [(g.name, g.channels) for g in first] == [(g.name, g.channels) for g in second]


class _Table:
    """Which axes every label lies on, in arrays over all labels."""

    def __init__(self, labels: Labels, order: Sequence[str]) -> None:
        self.labels, self.axes = labels, labels.axes
        self._order = {name: number for number, name in enumerate(order)}
        self.axis = np.full(labels.count, NONE, dtype=np.int64)
        self.position = np.zeros(labels.count, dtype=np.int64)
        for number, axis in enumerate(labels.axes):
            where = slice(axis.first, axis.first + axis.size)
            self.axis[where] = number
            self.position[where] = np.arange(axis.size)
        self.made = self._marks(labels.made)
        self.read = self._marks(labels.read)
        self._names: dict[str, int] = {}
        self._labels: dict[int, Ids] = {}

    def _marks(self, events: Sequence[tuple[Ids, int]]) -> Mapping[int, int]:
        """Return axis -> when it was first marked."""
        found: dict[int, int] = {}
        for own, time in events:
            for number in np.unique(self.axis[own[own >= 0]]).tolist():
                if number >= 0:
                    found[number] = min(time, found.get(number, time))
        return found

    def first_made(self, groups: Sequence[Group]) -> list[str]:
        """Return the names of groups in the order in which their channels are first made."""
        return sorted(
            (group.name for group in groups),
            key=lambda name: (self._names[name], name),
        )

    # --- elements -------------------------------------------------------------------------

    def groups(self, elements: Elements, parts: Ids) -> _Found:
        """Return the groups of elements that touch the same axes."""
        found = _Found()
        taken: dict[str, int] = defaultdict(int)
        signatures = sorted(self._signatures(elements), key=lambda one: one.time)
        for one in signatures:
            part = int(parts[one.label])
            free = [n for n in one.elements if n not in elements.pins]
            makers = self._makers(one.axes)
            reasons = [elements.pins[n] for n in one.elements if n in elements.pins]
            if not any(axis in self.read for axis in one.axes) and not reasons:
                reasons = [_NOTHING_READS]
                free = []
            if len(free) < 2:
                reason = reasons[0] if reasons else _ONE
                found.refused[part].update(dict.fromkeys(makers, reason))
                continue
            root = self.axes[one.root].owner
            taken[root] += 1
            name = root if taken[root] == 1 else f"{root}:{taken[root]}"
            self._names[name] = one.time
            found.groups[part].append(self._group(name, one, free, elements))
        return found

    def _makers(self, axes: Sequence[int]) -> list[str]:
        return list(dict.fromkeys(self.axes[axis].owner for axis in axes if axis in self.made))

    def _signatures(self, elements: Elements) -> Iterator["_Signature"]:
        """Collect elements that touch the same axes, each as often."""
        based = np.flatnonzero(self.axis >= 0)
        element, axis = elements.of[based], self.axis[based]
        is_made = np.isin(self.axis, np.fromiter(self.made, dtype=np.int64, count=len(self.made)))
        wanted = np.zeros(int(elements.of.max(initial=0)) + 1, dtype=bool)
        wanted[elements.of[is_made & (self.axis >= 0)]] = True
        kept = wanted[element]
        based, element, axis = based[kept], element[kept], axis[kept]
        order = np.lexsort((axis, element))
        based, element, axis = based[order], element[order], axis[order]
        starts = np.flatnonzero(np.diff(element, prepend=-1))
        ends = np.append(starts[1:], len(element))
        by_key: dict[bytes, list[int]] = defaultdict(list)
        spans: dict[int, tuple[int, int]] = {}
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            by_key[axis[start:end].tobytes()].append(start)
            spans[start] = (start, end)
        for firsts in by_key.values():
            start, end = spans[firsts[0]]
            axes = list(dict.fromkeys(axis[start:end].tolist()))
            makers = [a for a in axes if a in self.made]
            root = min(makers, key=lambda a: self.made[a])
            width = end - start
            table = based[np.asarray(firsts)[:, None] + np.arange(width)]
            column = int(np.flatnonzero(self.axis[table[0]] == root)[0])
            ranks = np.argsort(self.position[table[:, column]], kind="stable")
            table = table[ranks]
            yield _Signature(
                axes,
                root,
                self.made[root],
                elements.of[table[:, 0]].tolist(),
                table,
                int(table[0, 0]),
            )

    # --- members --------------------------------------------------------------------------

    def _group(
        self, name: str, one: "_Signature", free: Sequence[int], elements: Elements
    ) -> Group:
        rank = np.full(int(elements.of.max(initial=0)) + 1, NONE, dtype=np.int64)
        rank[np.asarray(free)] = np.arange(len(free))
        kept = rank[np.asarray(one.elements)] >= 0
        table = one.labels[kept]
        members: dict[tuple[str, bytes, bytes], list[tuple[int, Tensor, Tensor]]] = defaultdict(
            list
        )
        for axis in one.axes:
            columns = np.flatnonzero(self.axis[table[0]] == axis)
            positions = self.position[table[:, columns]]
            channel = np.broadcast_to(np.arange(len(table))[:, None], positions.shape)
            order = np.argsort(positions.ravel(), kind="stable")
            index = torch.from_numpy(positions.ravel()[order])
            which = torch.from_numpy(np.ascontiguousarray(channel).ravel()[order])
            role = "consumer" if axis in self.read and axis not in self.made else ""
            key = (self.axes[axis].owner + role, index.numpy().tobytes(), which.numpy().tobytes())
            members[key].append((axis, index, which))
        made = [self._member(parts) for parts in members.values()]
        place = self._order
        made.sort(key=lambda m: (_RANK[m.role], place.get(m.layer, 1 << 30)))
        weights = [m for m in made if m.role != "carrier"]
        found = Group(
            name,
            len(free),
            tuple(made),
            bundle=min(len(m.index) // len(free) for m in weights),
            norms=self._norms(elements, rank),
            numbers=self._numbers(elements, rank),
        )
        self._labels[id(found)] = np.flatnonzero(rank[elements.of] >= 0)
        return found

    def with_products(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        """Return groups with what of the MACs that belong to no layer goes with their widths.

        The MACs of an operation are a product over its axes, and on each the fractions of what was
        concatenated add up.
        """
        owner = np.full(self.labels.count, NONE, dtype=np.int64)
        for number, group in enumerate(groups):
            owner[self._labels[id(group)]] = number
        total = sum(macs for macs, _ in self.labels.costs)
        found: dict[tuple[int, ...], float] = defaultdict(float)
        for macs, axes in self.labels.costs:
            terms = {(): macs / total}
            for axis in axes:
                numbers, counts = np.unique(
                    np.where(axis >= 0, owner[axis], NONE), return_counts=True
                )
                terms = {
                    (*own, *([int(number)] if number >= 0 else [])): part * count / len(axis)
                    for own, part in terms.items()
                    for number, count in zip(numbers, counts, strict=True)
                }
            for own, part in terms.items():
                if own:
                    found[tuple(sorted(own))] += part
        parts: dict[int, list[tuple[float, tuple[str, ...]]]] = defaultdict(list)
        for own, part in found.items():
            parts[own[0]].append((part, tuple(groups[number].name for number in own)))
        return tuple(
            replace(group, products=tuple(parts[number])) for number, group in enumerate(groups)
        )

    def _member(self, parts: Sequence[tuple[int, Tensor, Tensor]]) -> Member:
        axes = [axis for axis, _, _ in parts]
        role: Role = "carrier"
        if any(axis in self.made for axis in axes):
            role = "producer"
        elif any(axis in self.read for axis in axes):
            role = "consumer"
        _, index, channel = parts[0]
        dims = tuple((self.axes[axis].tensor, self.axes[axis].dim) for axis in axes)
        owner = self.axes[axes[0]].owner
        shows = None
        if role == "producer" and not self._shows(owner, axes, index):
            shows = False
        return Member(owner, role, index, channel, dims, shows)

    def _shows(self, owner: str, axes: Sequence[int], index: Tensor) -> bool:
        """Return whether a layer's output has the positions of its rows."""
        for _, own in self.labels.outputs.get(owner, ()):
            if any(
                len(own) == self.axes[axis].size and own[0] == self.axes[axis].first
                for axis in axes
            ):
                return True
        return False

    def _norms(self, elements: Elements, rank: Ids) -> tuple[Statistics, ...]:
        found: dict[tuple[str, int], Statistics] = {}
        for own, layer in self.labels.statistics:
            channel = np.where(own >= 0, rank[elements.of[own]], NONE)
            index = np.flatnonzero(channel >= 0)
            if len(index):
                found[layer, len(own)] = Statistics(
                    layer, len(own), torch.from_numpy(index), torch.from_numpy(channel[index])
                )
        return tuple(found.values())

    def _numbers(self, elements: Elements, rank: Ids) -> tuple[Number, ...]:
        found: dict[Number, None] = {}
        for number in self.labels.numbers.values():
            own = number.labels[number.labels >= 0]
            if len(own) and rank[elements.of[own[0]]] >= 0:
                found[Number(len(number.labels), number.modules, number.place)] = None
        return tuple(found)


@dataclass(frozen=True)
class _Signature:
    """Elements that touch the same axes.

    Attributes:
        axes: Numbers of the axes.
        root: The axis of the layer that makes the channels first.
        time: When it did.
        elements: Numbers of the elements, in the order of the root's positions.
        labels: (elements, positions of each) labels.
        label: One of the labels.
    """

    axes: Sequence[int]
    root: int
    time: int
    elements: Sequence[int]
    labels: Ids
    label: int


def axis_name(axis: Axis) -> str:
    """Return the name of a tensor with its axis, for messages."""
    owner = f"{axis.owner}." if axis.owner else ""
    return f"{owner}{axis.tensor}[{axis.dim}]"
