"""Operations that read parts of an axis."""

import numpy as np
import torch
from torch import Tensor

from lightning_prune.graph.rules.operation import Axes, Operation, axis_of
from lightning_prune.graph.rules.reshaping import split


def slice_(op: Operation) -> None:
    """Cut a slice of one axis."""
    source = op.args["self"]
    dim, axes = axis_of(op.args["dim"], source), op.axes(source)
    if dim in axes and op.out.shape[dim] != source.shape[dim]:
        op.number(axes[dim])
        axes[dim] = axes[dim][slice(op.args["start"], op.args["end"], op.args["step"])]
    op.give(op.out, axes, op.is_weight(source))


def select(op: Operation) -> None:
    """One position of an axis, or each of them (unbind)."""
    source = op.args["self"]
    dim, axes = axis_of(op.args["dim"], source), op.axes(source)
    taken = axes.pop(dim, None)
    if taken is not None:
        op.labels.pin(taken, f"its places are read one by one{op.where()}")
    left = {place - (place > dim): own for place, own in axes.items()}
    several = isinstance(op.out, list | tuple)
    for number, out in enumerate(op.out if several else [op.out]):
        part = op.part(source)
        if taken is not None:
            part |= {int(taken[number if several else op.args["index"]])}
        op.give(out, left, op.is_weight(source), part)


def split_(op: Operation) -> None:
    """Split an axis into parts: the i-th of all equal parts can only go together."""
    source = op.args["self"]
    dim, axes = axis_of(op.args["dim"], source), op.axes(source)
    weight = op.is_weight(source)
    sizes = [part.shape[dim] for part in op.out]
    if dim not in axes or len(sizes) == 1:
        for part in op.out:
            op.give(part, axes, weight)
        return
    whole = axes.pop(dim)
    if len(set(sizes)) == 1 and sizes[0] > 1 and (whole >= 0).all():
        parts, places = op.labels.lattice(whole.reshape(len(sizes), sizes[0]), op.find_place())
        op.labels.pin(parts, f"its parts are read one by one{op.where()}")
        op.number(places)
        op.number(whole)
        for part, taken in zip(op.out, parts.tolist(), strict=True):
            op.give(part, {**axes, dim: places}, weight, op.part(source) | {taken})
        return
    op.number(whole)
    starts = np.cumsum([0, *sizes])
    for part, start, size in zip(op.out, starts, sizes, strict=False):
        own = whole[start : start + size]
        if size == 1:
            op.labels.pin(own, f"it is read by itself{op.where()}")
        op.give(part, {**axes, dim: own} if size > 1 else axes, weight)


def index(op: Operation) -> None:
    """x[..., indices, ...] with constant indices."""
    source: Tensor = op.args["self"]
    axes, weight = op.axes(source), op.is_weight(source)
    indices: list[Tensor | None] = list(op.args["indices"])
    kinds = [i for i in indices if i is not None and i.dtype in (torch.bool, torch.uint8)]
    if kinds and any(i is not None and i.dim() > 1 for i in kinds):
        op.pin(axes, f"its channels are read at places that depend on values{op.where()}")
        return
    places = [dim for dim, i in enumerate(indices) if i is not None]
    given = [i for i in indices if i is not None]
    rank = max(1, max(_rank(i) for i in given))
    adjacent = places == list(range(places[0], places[0] + len(places)))
    front = places[0] if adjacent else 0
    left = [dim for dim in range(source.dim()) if dim not in places]
    found: Axes = {}
    for number, dim in enumerate(left):
        if dim in axes:
            found[number if number < front else number + rank] = axes[dim]
    for dim in places:
        if dim not in axes:
            continue
        where = indices[dim]
        if len(places) > 1 or where is None:
            op.labels.pin(axes[dim], f"its places are read one by one{op.where()}")
            continue
        op.number(axes[dim])
        chosen = axes[dim][where.detach().cpu().numpy()]
        sizes = list(op.out.shape[front : front + rank])
        for offset, own in enumerate(split(op, chosen.reshape(-1), sizes)):
            if own is not None:
                found[front + offset] = own
    op.give(op.out, found, weight)


def _rank(indices: Tensor) -> int:
    return 1 if indices.dtype in (torch.bool, torch.uint8) else indices.dim()


def index_select(op: Operation) -> None:
    """Rows at constant indices."""
    source = op.args["self"]
    dim, axes = axis_of(op.args["dim"], source), op.axes(source)
    if dim in axes:
        op.number(axes[dim])
        axes[dim] = axes[dim][op.args["index"].detach().cpu().numpy().reshape(-1)]
    op.give(op.out, axes, op.is_weight(source))


def gather(op: Operation) -> None:
    """Values at places that differ by position: other axes stay where they are whole."""
    source, places = op.args["self"], op.args["index"]
    dim, axes = axis_of(op.args["dim"], source), op.axes(source)
    if dim in axes:
        op.labels.pin(axes.pop(dim), f"its places are read one by one{op.where()}")
    for other, own in list(axes.items()):
        if places.shape[other] != source.shape[other]:
            op.labels.pin(axes.pop(other), f"only some of its channels are read{op.where()}")
        elif places.stride(other) != 0 and not _same_everywhere(places, other):
            op.labels.pin(own, f"its places are read one by one{op.where()}")
    op.give(op.out, axes, op.is_weight(source))


def _same_everywhere(tensor: Tensor, dim: int) -> bool:
    return bool((tensor == tensor.narrow(dim, 0, 1)).all())


def embedding(op: Operation) -> None:
    """Rows of a table by number."""
    weight = op.args["weight"]
    axes = op.axes(weight)
    if 0 in axes:
        op.labels.pin(axes[0], "its rows are chosen by the input")
    if 1 in axes:
        op.labels.mark_made(axes[1])
        op.give(op.out, {op.out.dim() - 1: axes[1]})
