"""One traced operation, as the rules see it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_prune.graph.drawn_values import is_drawn
from lightning_prune.graph.labels import (
    Ids,
    Labels,
    Number,
    TensorLabels,
    is_uniform,
    labels_of,
    set_labels,
)

Axes = dict[int, Ids]


@dataclass
class Operation:
    """An operation that has run: what went in, what came out, and where.

    Attributes:
        labels: Where joins, pins and lattices are noted.
        func: The operation.
        args: Its arguments by name.
        out: Its result.
        modules: Names of the modules that are running, the outermost first.
        leaf: Whether the innermost of them has no children.
        find_place: Returns the file and line in a user's code.
        counted: Whether the innermost is a layer whose MACs are counted as its own.
        shapes: Shapes that arguments had before, of operations that change them in place.
        uniform: Axes along which a tensor without labels that is written was the same before.
    """

    labels: Labels
    func: Any
    args: Mapping[str, Any]
    out: Any
    modules: tuple[str, ...]
    leaf: bool
    find_place: Callable[[], str]
    counted: bool = False
    shapes: Mapping[str, torch.Size] = field(default_factory=dict)
    uniform: Collection[int] | None = None

    @property
    def name(self) -> str:
        """Return the operation's name without namespace and overload: ``view``."""
        return str(self.func._schema.name).split("::")[-1]

    @property
    def inside(self) -> str:
        """Return the name of the innermost module."""
        return self.modules[-1] if self.modules else ""

    def where(self) -> str:
        """Return where it happens, for reasons: `` in layer 'a' (net.py:12)``."""
        place = self.find_place()
        layer = f" in {self.inside!r}" if self.inside else ""
        return f"{layer} ({place})" if place else layer

    def axes(self, tensor: Any) -> Axes:
        """Return the labels of a tensor by axis."""
        found = labels_of(tensor) if isinstance(tensor, Tensor) else None
        return {} if found is None else dict(found.axes)

    def is_weight(self, *tensors: Any) -> bool:
        """Return whether all tensors of several elements come from parameters alone."""
        given = [t for t in tensors if isinstance(t, Tensor) and t.numel() > 1]
        return bool(given) and all(
            (known := labels_of(t)) is not None and known.weight for t in given
        )

    def part(self, *tensors: Any) -> frozenset[int]:
        """Return what was taken of axes that tensors no longer have."""
        known = (labels_of(t) for t in tensors if isinstance(t, Tensor))
        return frozenset().union(*(found.part for found in known if found is not None))

    def give(
        self,
        tensor: Any,
        axes: Mapping[int, Ids],
        weight: bool = False,
        part: Collection[int] | None = None,
    ) -> None:
        """Attach labels to a result.

        Args:
            tensor: The result.
            axes: Its labels.
            weight: Whether it comes from parameters alone.
            part: What was taken of axes that it does not have; None: what was of the arguments'.
        """
        if not isinstance(tensor, Tensor):
            return
        kept = {dim: own for dim, own in axes.items() if (own >= 0).any()}
        if part is None:
            part = self.part(*self.args.values())
        set_labels(tensor, TensorLabels(kept, weight, part) if kept else None)

    def number(self, labels: Ids) -> None:
        """Note that the operation states the size of these positions."""
        key = (self.inside, len(labels), int(labels[0]), self.name)
        if key not in self.labels.numbers:
            self.labels.numbers[key] = Number(labels, self.modules, self.find_place())

    def cost(self, macs: int, *axes: Ids | None) -> None:
        """Note the MACs of an operation that belongs to no layer, and its axes."""
        if not self.counted:
            self.labels.costs.append((macs, tuple(own for own in axes if own is not None)))

    def pin(self, axes: Mapping[int, Ids] | Sequence[Ids], reason: str) -> None:
        """Pin all positions of some axes."""
        for own in axes.values() if isinstance(axes, Mapping) else axes:
            self.labels.pin(own, reason)

    def align(self, tensors: Sequence[Tensor], shape: torch.Size) -> Axes:
        """Join the labels of tensors that are broadcast to a shape; return those of the result."""
        found: Axes = {}
        for dim in range(len(shape)):
            size = shape[dim]
            parts: list[tuple[Tensor, int, Ids | None]] = []
            for tensor in tensors:
                own = dim - (len(shape) - tensor.dim())
                if own < 0 or tensor.shape[own] != size:
                    continue
                parts.append((tensor, own, self.axes(tensor).get(own)))
            labelled = [own for _, _, own in parts if own is not None]
            if not labelled or size == 1:
                continue
            first = labelled[0]
            for other in labelled[1:]:
                self.labels.join(first, other, f"a part of fixed size is combined{self.where()}")
            alone = [(t, own) for t, own, labels in parts if labels is None]
            if any(not self._is_uniform(tensor, own) for tensor, own in alone):
                # Pinned, and no longer followed: like values that belong to no layer.
                for own_labels in labelled:
                    self.labels.pin(
                        own_labels,
                        "its channels are combined with values that belong to no layer"
                        f"{self.where()}",
                    )
                continue
            if any(tensor.stride(own) != 0 for tensor, own in alone):
                self.number(first)
            found[dim] = _merged(labelled)
        return found

    def _is_uniform(self, tensor: Tensor, dim: int) -> bool:
        if is_drawn(tensor):
            return True
        if self.uniform is not None and tensor is self.args.get("self"):
            return dim in self.uniform
        return is_uniform(tensor, dim)


def _merged(labelled: Sequence[Ids]) -> Ids:
    first = labelled[0]
    if (first >= 0).all():
        return first
    merged = first.copy()
    for other in labelled[1:]:
        merged = merged if (merged >= 0).all() else _fill(merged, other)
    return merged


def _fill(first: Ids, second: Ids) -> Ids:
    filled = first.copy()
    empty = filled < 0
    filled[empty] = second[empty]
    return filled


def axis_of(dim: int, tensor: Tensor) -> int:
    """Return an axis as a number from the front."""
    return dim % max(1, tensor.dim())
