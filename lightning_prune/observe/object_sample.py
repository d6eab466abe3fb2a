"""A random sample of objects, kept whole: random labels must be dealt out over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.functional.selection.moments import ClassMoments, class_moments

_VALUES = 1 << 23
"""Values (objects times channels) that a sample keeps: 32 MB in single precision."""


@dataclass(frozen=True)
class ObjectSample:
    """N objects, drawn uniformly and without replacement from all that were seen, on the CPU.

    Every object draws a key, and those with the smallest keys are kept: samples of several parts
    merge to a sample of all, whatever their order and sizes.

    Source: E. Cohen and H. Kaplan, 2007, Summarizing data using bottom-k sketches, PODC.

    Attributes:
        values: (N, C), activations.
        label: (N,), their classes.
        key: (N,), in [0, 1).
        seen: Number of objects that the sample was drawn from.
    """

    values: Tensor
    label: Tensor
    key: Tensor
    seen: int

    @classmethod
    def of(cls, values: Tensor, label: Tensor, generator: torch.Generator) -> "ObjectSample":
        """Return a sample of some objects, at most as many as there is room for."""
        key = torch.rand(len(label), generator=generator, dtype=torch.float64)
        return cls.merged([cls(values.detach().cpu(), label.cpu(), key, len(label))])

    @classmethod
    def merged(cls, parts: Sequence["ObjectSample"]) -> "ObjectSample":
        """Return a sample of the objects of all parts.

        >>> one = ObjectSample(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0.3]), 1)
        >>> two = ObjectSample(torch.ones(1, 2), torch.tensor([1]), torch.tensor([0.1]), 4)
        >>> both = ObjectSample.merged([one, two])
        >>> both.label.tolist(), both.seen
        ([0, 1], 5)
        """
        values, label, key = (
            torch.cat(columns)
            for columns in zip(*((p.values, p.label, p.key) for p in parts), strict=True)
        )
        room = max(1, _VALUES // max(1, values.shape[1]))
        if len(key) > room:
            kept = key.topk(room, largest=False).indices.sort().values
            values, label, key = values[kept], label[kept], key[kept]
        return cls(values, label, key, sum(part.seen for part in parts))

    @property
    def is_all(self) -> bool:
        """Return whether the sample holds every object that was seen."""
        return len(self.label) == self.seen

    def moments(self, columns: slice, classes: int) -> ClassMoments:
        """Return the class statistics of some channels in the sample."""
        return class_moments(self.values[:, columns], self.label, classes)

    def shuffled(self, columns: slice, classes: int, times: int, seed: int) -> list[ClassMoments]:
        """Return the same under labels dealt out at random, as many objects a class each time.

        The labels do not depend on the order of the objects, as processes share them out.
        """
        values, label = self._ordered(columns)
        generator = torch.Generator().manual_seed(seed)
        return [
            class_moments(values, label[torch.randperm(len(label), generator=generator)], classes)
            for _ in range(times)
        ]

    def halves(
        self, columns: slice, classes: int, times: int, seed: int
    ) -> list[tuple[ClassMoments, ClassMoments]]:
        """Return the statistics of two random halves of the sample, so many times.

        Each class is halved; of an odd number of objects the second half has one more. As with
        random labels, halves do not depend on the order of the objects.
        """
        values, label = self._ordered(columns)
        generator = torch.Generator().manual_seed(seed)
        members = [(label == k).nonzero()[:, 0] for k in range(classes)]
        found = []
        for _ in range(times):
            first = torch.zeros(len(label), dtype=torch.bool)
            for places in members:
                dealt = torch.randperm(len(places), generator=generator)
                first[places[dealt[: len(places) // 2]]] = True
            found.append(
                (
                    class_moments(values[first], label[first], classes),
                    class_moments(values[~first], label[~first], classes),
                )
            )
        return found

    def _ordered(self, columns: slice) -> tuple[Tensor, Tensor]:
        order = self.values.to(torch.float64).sum(1).argsort()
        return self.values[order, columns], self.label[order]
