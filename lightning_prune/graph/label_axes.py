"""Which axes of which tensors every label lies on."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_prune.graph.labels import NONE, Ids, Labels
from lightning_prune.graph.lattices import Elements


@dataclass(frozen=True)
class Signature:
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


class LabelAxes:
    """Axes of labels, in arrays over all labels.

    Attributes:
        labels: What a trace has learned.
        axes: The axes of parameters and buffers.
        axis: Number of the axis of every label, -1 of labels of no tensor.
        position: Position of every label on its axis.
        made: Axis -> when a layer first made its positions.
        read: Axis -> when a layer first summed over them.
        times: Axis -> how many channels each position stands for, where that is not one.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels, self.axes = labels, labels.axes
        self.axis = np.full(labels.count, NONE, dtype=np.int64)
        self.position = np.zeros(labels.count, dtype=np.int64)
        for number, axis in enumerate(labels.axes):
            where = slice(axis.first, axis.first + axis.size)
            self.axis[where] = number
            self.position[where] = np.arange(axis.size)
        self.made = self._marks(labels.made)
        self.read = self._marks(labels.read)
        self.times = {
            axis: times
            for own, times in labels.repeated
            for axis in np.unique(self.axis[own[own >= 0]]).tolist()
        }

    def _marks(self, events: Sequence[tuple[Ids, int]]) -> Mapping[int, int]:
        """Return axis -> when it was first marked."""
        found: dict[int, int] = {}
        for own, time in events:
            for number in np.unique(self.axis[self._based(own[own >= 0])]).tolist():
                if number >= 0:
                    found[number] = min(time, found.get(number, time))
        for alias, first in self.labels.aliases.items():  # what is done with one is with both
            if (number := int(self.axis[first])) in found:
                found[int(self.axis[alias])] = found[number]
        return found

    def _based(self, own: Ids) -> Ids:
        """Return labels of positions of tensors: for a part of equal parts, those of all parts."""
        if not len(own) or (self.axis[own] >= 0).any():
            return own
        for lattice in reversed(self.labels.lattices):
            rows = lattice.rows.ravel()
            if self._is_axis(rows) and any(np.isin(one, own).any() for one in lattice.factors):
                own = np.union1d(own, rows)
        return own

    def _is_axis(self, rows: Ids) -> bool:
        """Return whether rows are all positions of an axis, each once."""
        number = self.axis[rows[0]]
        return bool(
            number >= 0
            and len(rows) == self.axes[number].size
            and (self.axis[rows] == number).all()
            and (np.diff(self.position[rows]) == 1).all()
        )

    def signatures(self, elements: Elements) -> Iterator[Signature]:
        """Collect elements that touch the same axes, each as often."""
        based = np.flatnonzero(self.axis >= 0)
        element, axis = elements.of[based], self.axis[based]
        is_made = np.isin(self.axis, np.fromiter(self.made, dtype=np.int64, count=len(self.made)))
        wanted = np.zeros(int(elements.of.max(initial=0)) + 1, dtype=bool)
        wanted[elements.of[is_made & (self.axis >= 0)]] = True
        kept = wanted[element]
        based, element, axis = based[kept], element[kept], axis[kept]
        order = np.argsort(element, kind="stable")  # labels are in the order of their axes
        based, element, axis = based[order], element[order], axis[order]
        starts = np.flatnonzero(np.diff(element, prepend=-1))
        widths = np.diff(starts, append=len(element))
        # Neighbours mostly touch the same axes: only where they do not begins another run.
        same = axis == axis[np.arange(len(axis)) - np.repeat(widths, widths)]
        is_same = np.logical_and.reduceat(same, starts) & (np.diff(widths, prepend=-1) == 0)
        heads = np.flatnonzero(~is_same)
        by_key: dict[bytes, list[int]] = defaultdict(list)
        for number, (start, width) in enumerate(zip(starts[heads], widths[heads], strict=True)):
            by_key[axis[start : start + width].tobytes()].append(number)
        runs = np.split(starts, heads[1:])
        for numbers in by_key.values():
            start, width = starts[heads[numbers[0]]], widths[heads[numbers[0]]]
            axes = list(dict.fromkeys(axis[start : start + width].tolist()))
            makers = [a for a in axes if a in self.made]
            root = min(makers, key=lambda a: self.made[a])
            firsts = np.concatenate([runs[number] for number in numbers])
            table = based[firsts[:, None] + np.arange(width)]
            column = int(np.flatnonzero(self.axis[table[0]] == root)[0])
            ranks = np.argsort(self.position[table[:, column]], kind="stable")
            table = table[ranks]
            yield Signature(
                axes,
                root,
                self.made[root],
                elements.of[table[:, 0]].tolist(),
                table,
                int(table[0, 0]),
            )
