"""Which labels belong to which group."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lightning_prune.graph.group import Number
from lightning_prune.graph.labels import NONE, Ids, Labels
from lightning_prune.graph.labels import Number as StatedNumber
from lightning_prune.graph.lattices import Elements


class Places:
    """Which labels belong to which group, and what was learned of each group's labels.

    Attributes:
        owner: Number of the group of every label, -1 of those of none.
        labels: The labels of each group.
        statistics: What of ``Labels.statistics`` a group has a part in.
        numbers: What of ``Labels.numbers`` states its size; not the number of positions that all
            belong to one channel (the width of a head).
    """

    def __init__(self, labels: Labels, elements: Elements, groups: Sequence[Sequence[int]]) -> None:
        count = int(elements.of.max(initial=0)) + 1
        owner, rank = (np.full(count, NONE, dtype=np.int64) for _ in range(2))
        for number, free in enumerate(groups):
            owner[free], rank[free] = number, np.arange(len(free))
        self.owner, self._rank = owner[elements.of], rank[elements.of]
        order = np.argsort(self.owner, kind="stable")
        ends = np.searchsorted(self.owner[order], np.arange(len(groups) + 1))
        self.labels = [order[ends[n] : ends[n + 1]] for n in range(len(groups))]
        self.statistics: dict[int, list[tuple[Ids, str]]] = defaultdict(list)
        for own, layer in labels.statistics:
            for number in np.unique(self.owner[own[own >= 0]]).tolist():
                self.statistics[number].append((own, layer))
        self.numbers: dict[int, list[StatedNumber]] = defaultdict(list)
        for stated in labels.numbers.values():
            known = stated.labels[stated.labels >= 0]
            if len(known):
                number = int(self.owner[known[0]])
                channels = np.unique(self.channel(known, number))
                if len(channels[channels >= 0]) > 1 or len(known) == 1:
                    self.numbers[number].append(stated)

    def stated(self, number: int) -> tuple[Number, ...]:
        """Return the numbers that state the size of a group, each once."""
        stated = self.numbers[number]
        return tuple(dict.fromkeys(Number(len(n.labels), n.modules, n.place) for n in stated))

    def channel(self, own: Ids, number: int) -> Ids:
        """Return the channel of some labels in a group, -1 of those of other groups."""
        return np.where((own >= 0) & (self.owner[own] == number), self._rank[own], NONE)
