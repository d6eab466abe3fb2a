"""Which fraction of an axis stays, as a function of the widths of the groups that it belongs to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

Monomials = Iterator[tuple[tuple[int, ...], float]]


@dataclass(frozen=True)
class KeptFraction:
    r"""The fraction of the positions of an axis that stays, given the widths of groups.

    .. math:: f(w) = 1 - \sum_t \frac{n_t}{n} \left(1 - \prod_{g \in t} \frac{w_g}{C_g}\right)

    Positions that are side by side (what was concatenated) add up; groups that are factors of the
    same positions (heads, and the width of each head) multiply. Exact where each factor takes the
    same fraction of the positions of all the others, as in a lattice.

    Attributes:
        size: Number of positions n; 1 where ``parts`` are fractions.
        parts: Tuples (positions :math:`n_t`, names of the groups that all have a channel there).

    >>> both = KeptFraction(12, ((6, ("a",)), (4, ("heads", "width"))))  # and 2 of no group
    >>> both.at({"a": 1, "heads": 1}, {"a": 3, "heads": 2, "width": 2})  # (12 - 4 - 2) / 12
    0.5
    """

    size: int
    parts: tuple[tuple[float, tuple[str, ...]], ...]

    @classmethod
    def of(cls, size: int, held: Sequence[tuple[str, Tensor]]) -> "KeptFraction":
        """Return the fraction of an axis of ``size`` positions.

        Args:
            size: Number of positions.
            held: Tuples (name of a group, positions of its channels on the axis).

        >>> import torch
        >>> every, some = torch.arange(6), torch.arange(3)
        >>> KeptFraction.of(8, [("heads", every), ("width", every), ("heads", some)]).parts
        ((6, ('heads', 'width')),)
        """
        names = list(dict.fromkeys(name for name, _ in held))
        covered = np.zeros((len(names), size), dtype=bool)
        for name, index in held:
            covered[names.index(name), index.numpy()] = True
        if (covered.sum(0) <= 1).all():
            counts = [(int(n), (name,)) for n, name in zip(covered.sum(1), names, strict=True)]
            return cls(size, tuple((n, own) for n, own in counts if n))
        sets, times = np.unique(covered, axis=1, return_counts=True)
        found = [
            (int(count), tuple(name for name, has in zip(names, own, strict=True) if has))
            for own, count in zip(sets.T, times, strict=True)
        ]
        found.sort(key=lambda part: [names.index(name) for name in part[1]])
        return cls(size, tuple(part for part in found if part[1]))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the groups that the fraction depends on."""
        return tuple(dict.fromkeys(name for _, own in self.parts for name in own))

    @property
    def only(self) -> str | None:
        """Return the one group that has all positions, or None."""
        if len(self.parts) != 1 or self.parts[0][0] != self.size or len(self.parts[0][1]) != 1:
            return None
        return self.parts[0][1][0]

    def at(self, widths: Mapping[str, int], channels: Mapping[str, int]) -> float:
        """Return the fraction when groups keep these many channels (others all)."""
        lost = 0.0
        for positions, names in self.parts:
            varied = [name for name in names if name in widths]
            if len(varied) == 1:
                each = positions / channels[varied[0]]
                lost += each * (channels[varied[0]] - widths[varied[0]])
            elif varied:
                lost += positions * (1 - math.prod(widths[n] / channels[n] for n in varied))
        return 1 - lost / self.size

    def monomials(self, place: Mapping[str, int], channels: Mapping[str, int]) -> Monomials:
        """Yield the fraction as a polynomial of widths: (places of the factors, coefficient).

        Args:
            place: Name -> place of the groups whose widths vary; others keep all channels.
            channels: Name -> number of channels.

        >>> fraction = KeptFraction(8, ((2, ("a",)), (4, ("a", "b"))))
        >>> dict(fraction.monomials({"a": 0, "b": 1}, {"a": 2, "b": 2}))
        {(): 0.25, (0,): 0.125, (0, 1): 0.125}
        """
        free = 1.0
        found: dict[tuple[int, ...], float] = {}
        for positions, names in self.parts:
            varied = tuple(name for name in names if name in place)
            if not varied:
                continue
            key = tuple(place[name] for name in varied)
            wide = math.prod(channels[name] for name in varied)
            found[key] = found.get(key, 0.0) + positions / wide / self.size
            free -= positions / wide * wide / self.size
        yield (), free
        yield from found.items()
