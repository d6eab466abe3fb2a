"""Groups of channels out of labels: positions that can only go together, by what they touch."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lightning_prune.graph.group import Attention, Group, Member, Size, Statistics
from lightning_prune.graph.group_products import with_products
from lightning_prune.graph.label_axes import LabelAxes, Signature
from lightning_prune.graph.label_places import Places
from lightning_prune.graph.labels import Ids, Labels
from lightning_prune.graph.lattices import Elements, components, pins_of, tie
from lightning_prune.graph.layer_kinds import Role
from lightning_prune.graph.names import layer_of
from lightning_prune.graph.score_rows import scores_of

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


def resolve(labels: Labels, order: Sequence[str], attention: Attention = "heads") -> Resolved:
    """Return the groups of channels that the labels of a traced pass demand.

    Where rows are a product of factors (heads and the width of each, groups of a convolution and
    the places in each) a cut must leave a rectangle, so that one factor is cut and rows are tied
    along the others; in attention several may be. Elsewhere it is the outer factor where it has
    enough positions, or the inner one.

    Args:
        labels: What the trace has learned.
        order: Names of the layers in the order of the forward pass.
        attention: Whether heads, their width or both are groups of attention.
    """
    classes = labels.classes()
    pins = pins_of(labels, classes)
    parts = components(labels)
    table = _Table(labels, order)
    outer = table.groups(tie(labels, classes, pins, "outer"), parts)
    inner = table.groups(tie(labels, classes, pins, "inner"), parts) if labels.lattices else outer
    of_attention = {int(parts[own[0]]) for own in labels.products if len(own)}
    groups: list[Group] = []
    others: dict[str, tuple[Group, ...]] = {}
    refused: dict[str, str] = {}
    for part in sorted({*outer.groups, *inner.groups, *outer.refused, *inner.refused}):
        first, second = outer, inner
        wanted = attention if part in of_attention else None
        if not _prefers_outer(outer.groups[part], inner.groups[part], wanted):
            first, second = inner, outer
        groups += first.groups[part]
        refused |= {**second.refused[part], **first.refused[part]}
        further = [
            group for group in second.groups[part] if table.is_new(group, first.groups[part])
        ]
        if wanted == "both":
            groups += further
        elif further:
            for group in first.groups[part]:
                others[group.name] = tuple(second.groups[part])
    groups = table.with_own_names(groups)
    made = {layer for group in groups for layer in group.producers}
    left = {name: why for name, why in refused.items() if name not in made}
    place = {name: n for n, name in enumerate(table.first_made(groups))}
    groups.sort(key=lambda group: place[group.name])
    return Resolved(with_products(groups, table.labels_of(groups), labels), others, left)


def _prefers_outer(
    outer: Sequence[Group], inner: Sequence[Group], attention: Attention | None
) -> bool:
    if not outer or not inner:
        return bool(outer) or not inner
    if attention is not None:
        return attention != "width"
    few = min(group.channels for group in outer)
    return few >= min(_FEWEST, min(group.channels for group in inner))


class _Table(LabelAxes):
    """Makes groups out of elements."""

    def __init__(self, labels: Labels, order: Sequence[str]) -> None:
        super().__init__(labels)
        self._order = {name: number for number, name in enumerate(order)}
        self._names: dict[str, int] = {}
        self._labels: dict[int, Ids] = {}

    def first_made(self, groups: Sequence[Group]) -> list[str]:
        """Return the names of groups in the order in which their channels are first made."""
        return sorted(
            (group.name for group in groups),
            key=lambda name: (self._names[name], name),
        )

    def labels_of(self, groups: Sequence[Group]) -> list[Ids]:
        """Return the labels of each group's channels."""
        return [self._labels[id(group)] for group in groups]

    def is_new(self, group: Group, known: Sequence[Group]) -> bool:
        """Return whether no known group has the same labels and as many channels."""
        own = self._labels[id(group)]
        return not any(
            group.channels == one.channels and np.array_equal(own, its)
            for one, its in zip(known, self.labels_of(known), strict=True)
        )

    def with_own_names(self, groups: Sequence[Group]) -> list[Group]:
        """Number groups that have a name in common: heads come before their width."""
        found: dict[str, Group] = {}
        for group in groups:
            name, number = group.name, 1
            while name in found:
                number += 1
                name = f"{group.root}:{number}"
            found[name] = group
            if name != group.name:
                found[name] = replace(group, name=name)
                self._labels[id(found[name])] = self._labels[id(group)]
                self._names[name] = self._names[group.name]
        return list(found.values())

    # --- elements -------------------------------------------------------------------------

    def groups(self, elements: Elements, parts: Ids) -> _Found:
        """Return the groups of elements that touch the same axes."""
        found = _Found()
        taken: dict[str, int] = defaultdict(int)
        signatures = sorted(self.signatures(elements), key=lambda one: one.time)
        freed: list[tuple[Signature, list[int]]] = []
        multiplied = {
            int(number)
            for own in self.labels.products
            for number in elements.of[np.unique(own[own >= 0])]
        }
        for one in signatures:
            free = [n for n in one.elements if n not in elements.pins]
            makers = self._makers(one.axes)
            reasons = [elements.pins[n] for n in one.elements if n in elements.pins]
            read = any(axis in self.read for axis in one.axes)
            if not read and multiplied.isdisjoint(one.elements) and not reasons:
                reasons = [_NOTHING_READS]
                free = []
            if len(free) < 2:
                reason = reasons[0] if reasons else _ONE
                found.refused[int(parts[one.label])].update(dict.fromkeys(makers, reason))
                continue
            freed.append((one, free))
        members = Places(self.labels, elements, [free for _, free in freed])
        for number, (one, free) in enumerate(freed):
            root = layer_of(self.axes[one.root].owner)
            taken[root] += 1
            name = root if taken[root] == 1 else f"{root}:{taken[root]}"
            self._names[name] = one.time
            group = self._group(name, one, len(free), members, number)
            found.groups[int(parts[one.label])].append(group)
        return found

    def _makers(self, axes: Sequence[int]) -> list[str]:
        owners = (layer_of(self.axes[axis].owner) for axis in axes if axis in self.made)
        return list(dict.fromkeys(owners))

    # --- members --------------------------------------------------------------------------

    def _group(
        self, name: str, one: Signature, channels: int, places: Places, number: int
    ) -> Group:
        table = one.labels[places.owner[one.labels[:, 0]] == number]
        members: dict[tuple[str, bytes, bytes], list[tuple[int, Ids, Ids]]] = defaultdict(list)
        for axis, index, which in self._positions(table):
            role = "consumer" if axis in self.read and axis not in self.made else ""
            key = (self.axes[axis].owner + role, index.tobytes(), which.tobytes())
            members[key].append((axis, index, which))
        made = [self._member(parts) for parts in members.values()]
        bundle = min(
            len(parts[0][1]) * self.times.get(parts[0][0], 1) // channels
            for parts, member in zip(members.values(), made, strict=True)
            if member.role != "carrier"
        )
        made = self._with_sources(made, bundle, places, number, channels)
        order = self._order
        made.sort(key=lambda m: (_RANK[m.role], order.get(m.layer, 1 << 30)))
        found = Group(
            name,
            channels,
            tuple(made),
            bundle=bundle,
            norms=self._norms(places, number),
            numbers=places.stated(number),
            scores=scores_of(self, places, number),
            sizes=self._sizes(places, number),
        )
        self._labels[id(found)] = places.labels[number]
        return found

    def _positions(self, table: Ids) -> Iterator[tuple[int, Ids, Ids]]:
        """Yield each axis of a table (channels, positions of each) with its positions in order.

        Together with the channel of each position. Columns are in the order of their axes.
        """
        axes = self.axis[table[0]]
        starts = np.flatnonzero(np.diff(axes, prepend=-1))
        widths = np.diff(starts, append=len(axes))
        positions = np.ascontiguousarray(self.position[table].T)
        single = starts[widths == 1]
        orders = np.argsort(positions[single], axis=1, kind="stable")
        sorted_ = np.take_along_axis(positions[single], orders, 1)
        row = 0
        for start, width in zip(starts.tolist(), widths.tolist(), strict=True):
            if width == 1:
                yield int(axes[start]), sorted_[row], orders[row]
                row += 1
            else:
                flat = positions[start : start + width].ravel()
                order = np.argsort(flat, kind="stable")
                yield int(axes[start]), flat[order], order % len(table)

    def _member(self, parts: Sequence[tuple[int, Ids, Ids]]) -> Member:
        axes = [axis for axis, _, _ in parts]
        role: Role = "carrier"
        if any(axis in self.made for axis in axes):
            role = "producer"
        elif any(axis in self.read for axis in axes):
            role = "consumer"
        index, channel = (torch.from_numpy(values.copy()) for values in parts[0][1:])
        dims = tuple((self.axes[axis].tensor, self.axes[axis].dim) for axis in axes)
        owner = self.axes[axes[0]].owner
        shows = None
        if role == "producer" and not self._shows(owner, axes, index):
            shows = False
        return Member(owner, role, index, channel, dims, shows)

    def _shows(self, owner: str, axes: Sequence[int], index: Tensor) -> bool:
        """Return whether a layer's output has the positions of its rows."""
        shown = [(len(own), int(own[0])) for _, own in self.labels.outputs.get(owner, ())]
        whole = [(self.axes[axis].size, self.axes[axis].first) for axis in axes]
        aliases = self.labels.aliases
        return any((size, aliases.get(first, first)) in shown for size, first in whole)

    def _with_sources(
        self,
        members: Sequence[Member],
        bundle: int,
        places: Places,
        number: int,
        channels: int,
    ) -> list[Member]:
        """Add where activations are read, if no layer that makes the channels shows them.

        Rows of gates are several a channel, of which their consumers see one; the rows of a
        computed weight are in a module that gives the weight. The smallest module around such a
        layer that gives the channels shows them, or else the last module that does.

        Args:
            members: The members of a group.
            bundle: Positions that a consumer sees of each channel.
            places: Which labels belong to which group.
            number: The group's.
            channels: Number of channels.
        """
        makers = [m for m in members if m.role == "producer"]
        if any(m.is_source and len(m.index) == bundle * channels for m in makers):
            return list(members)
        giving: dict[str, Ids] = {}
        for layer, axes in self.labels.outputs.items():
            for dim, own in axes:
                found = places.channel(own, number)
                counts = np.bincount(found[found >= 0], minlength=channels)
                if dim == 1 and len(counts) == channels and (counts == bundle).all():
                    giving[layer] = found
        around = [_innermost(layer_of(m.layer), m.layer, giving) for m in makers]
        chosen = list(dict.fromkeys(name for name in around if name is not None))
        chosen = chosen or list(giving)[-1:]
        if not chosen:
            return list(members)
        hidden = [replace(m, shows=False) if m in makers else m for m in members]
        for layer in chosen:
            index = torch.from_numpy(np.flatnonzero(giving[layer] >= 0))
            which = torch.from_numpy(giving[layer][index.numpy()])
            shown = Member(layer, "carrier", index, which, (), True)
            at = next((n for n, m in enumerate(hidden) if _same_places(m, shown)), None)
            if at is None:
                hidden.append(shown)
            else:
                hidden[at] = replace(hidden[at], shows=True)
        return hidden

    def _norms(self, places: Places, number: int) -> tuple[Statistics, ...]:
        found: dict[tuple[str, int], Statistics] = {}
        for own, layer in places.statistics[number]:
            channel = places.channel(own, number)
            index = np.flatnonzero(channel >= 0)
            found[layer, len(own)] = Statistics(
                layer, len(own), torch.from_numpy(index), torch.from_numpy(channel[index])
            )
        return tuple(found.values())

    def _sizes(self, places: Places, number: int) -> tuple[Size, ...]:
        return tuple(
            dict.fromkeys(
                Size(layer, attribute)
                for own, layer, attribute in self.labels.sizes
                if places.owner[own[own >= 0][0]] == number
            )
        )


def _innermost(layer: str, holder: str, giving: Mapping[str, Ids]) -> str | None:
    """Return the smallest of some modules around a layer; itself if its weight is computed."""
    name = layer if layer != holder else layer.rpartition(".")[0]
    while name and name not in giving:
        name = name.rpartition(".")[0]
    return name or None


def _same_places(member: Member, other: Member) -> bool:
    return (
        (member.layer, member.role) == (other.layer, other.role)
        and torch.equal(member.index, other.index)
        and torch.equal(member.channel, other.channel)
    )
