"""Reshapes: axes that are joined and taken apart, and the lattices that they demand."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from lightning_prune.graph.labels import NONE, Ids
from lightning_prune.graph.rules.operation import Axes, Operation

_ANY = 1_000_003  # a prime: it divides no product of other sizes


def reshape(op: Operation, axes: Axes, old: Sequence[int], new: Sequence[int]) -> Axes:
    """Return the labels after a reshape.

    Axes whose products agree are taken apart from the others, so that labels stay one wide where
    they do not vary.
    """
    if 0 in old:  # no boxes, no tokens: the axis without positions stands for any number of them
        old, new = ([size or _ANY for size in sizes] for sizes in (old, new))
        if math.prod(old) != math.prod(new):
            op.pin(axes, f"a reshape of no values says nothing of its channels{op.where()}")
            return {}
    before = [dim for dim, size in enumerate(old) if size != 1]
    after = [dim for dim, size in enumerate(new) if size != 1]
    found: Axes = {}
    i = j = 0
    while i < len(before) and j < len(after):
        first, second = [before[i]], [after[j]]
        i, j = i + 1, j + 1
        left, right = old[first[0]], new[second[0]]
        while left != right:
            if left < right:
                left *= old[before[i]]
                first.append(before[i])
                i += 1
            else:
                right *= new[after[j]]
                second.append(after[j])
                j += 1
        if any(dim in axes for dim in first):
            given = [(old[dim], axes.get(dim)) for dim in first]
            labels = _regrouped(op, given, [new[dim] for dim in second])
            found |= {d: own for d, own in zip(second, labels, strict=True) if own is not None}
    return found


def _regrouped(
    op: Operation, given: Sequence[tuple[int, Ids | None]], sizes: Sequence[int]
) -> list[Ids | None]:
    """Return the labels of axes of other sizes over the same places.

    Each axis is taken apart by itself where sizes allow it: samples that are merged with heads
    (N, H D -> N H, D) are no factor of the channels.
    """
    pieces = common_factors([size for size, _ in given], sizes)
    if pieces is None:
        return split(op, merged(op, given), sizes)
    left = iter(pieces)
    parts: list[tuple[int, Ids | None]] = []
    for size, own in given:
        factors = _until(left, size)
        labels: list[Ids | None] = [None] * len(factors)
        if own is not None:
            labels = split(op, own, factors)
        parts += zip(factors, labels, strict=True)
    found: list[Ids | None] = []
    rest = iter(parts)
    for size in sizes:
        own_parts: list[tuple[int, Ids | None]] = []
        while math.prod(factor for factor, _ in own_parts) != size:
            own_parts.append(next(rest))
        labelled = any(own is not None for _, own in own_parts)
        found.append(merged(op, own_parts) if labelled else None)
    return found


def _until(factors: Iterator[int], size: int) -> list[int]:
    found = [next(factors)]
    while math.prod(found) != size:
        found.append(next(factors))
    return found


def common_factors(first: Sequence[int], second: Sequence[int]) -> list[int] | None:
    """Return the sizes of which both shapes are products of neighbours, or None.

    >>> common_factors([2, 16], [8, 4]), common_factors([6], [2, 3]), common_factors([4, 6], [6, 4])
    ([2, 4, 4], [2, 3], None)
    """
    ends = {1}
    for shape in (first, second):
        ends |= {math.prod(shape[n:]) for n in range(len(shape))}
    bounds = sorted(ends)
    if any(large % small for small, large in pairwise(bounds)):
        return None
    return [large // small for small, large in pairwise(bounds)][::-1]


def merged(op: Operation, parts: Sequence[tuple[int, Ids | None]]) -> Ids:
    """Return the labels of axes that become one."""
    labelled = [own for _, own in parts if own is not None]
    sizes = [size for size, _ in parts]
    if len(labelled) == 1:
        core = labelled[0]
        if len(parts) == 1:
            return core
    else:
        for own in labelled:
            op.number(own)
        if not _whole(labelled):
            for own in labelled:
                op.labels.pin(own, f"axes of which only a part has channels are joined{op.where()}")
            return np.full(math.prod(sizes), NONE, dtype=np.int64)
        core = op.labels.product(labelled, op.find_place())
        op.number(core.reshape(-1))
    shape = [1 if own is None else size for size, own in parts]
    return np.broadcast_to(core.reshape(shape), sizes).reshape(-1)


def _whole(labelled: Sequence[Ids]) -> bool:
    return all((own >= 0).all() for own in labelled)


def split(op: Operation, flat: Ids, sizes: Sequence[int]) -> list[Ids | None]:
    """Return the labels of the axes into which one is taken apart."""
    if len(sizes) == 1:
        return [flat]
    rows = flat.reshape(tuple(sizes))
    varying = [
        dim for dim, size in enumerate(sizes) if size > 1 and (rows != rows.take([0], dim)).any()
    ]
    found: list[Ids | None] = [None] * len(sizes)
    index = tuple(slice(None) if dim in varying else 0 for dim in range(len(sizes)))
    core = rows[index]
    if not varying:
        op.labels.pin(flat, f"one channel is spread over several places{op.where()}")
        return found
    if len(varying) == 1:
        found[varying[0]] = core
        return found
    factors = op.labels.lattice(core, op.find_place())
    op.number(core.reshape(-1))
    for dim, own in zip(varying, factors, strict=True):
        op.number(own)
        found[dim] = own
    return found


def view(op: Operation) -> None:
    """view, squeeze, unsqueeze, flatten: the order of the values stays."""
    source, out = op.args["self"], op.out
    shape = op.shapes.get("self", source.shape)
    axes = reshape(op, op.axes(source), shape, out.shape)
    stated = op.args.get("size", op.args.get("shape", ()))
    for dim, own in axes.items():
        if dim < len(stated) and stated[dim] != -1:
            op.number(own)
    op.give(out, axes, op.is_weight(source))
