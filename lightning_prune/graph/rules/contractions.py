"""Operations that sum over channels: convolutions and matrix products."""

from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from lightning_prune.graph.labels import Ids, Product, is_uniform
from lightning_prune.graph.rules.operation import Axes, Operation
from lightning_prune.graph.rules.reshaping import split

_INPUT = "it reads values that no layer makes, such as the input of the model"


def contract(
    op: Operation, first: tuple[Tensor, Ids | None, int], second: tuple[Tensor, Ids | None, int]
) -> None:
    """Join the two sides of an axis that is summed over.

    Args:
        op: The operation.
        first: Tensor, labels of the axis, and the axis.
        second: The same of the other side.
    """
    sides = (first, second)
    for (_, own, _), (tensor, other, dim) in (sides, sides[::-1]):
        if own is None or other is not None:
            continue
        if is_uniform(tensor, dim):
            op.number(own)  # a first state of zeros
        elif op.is_weight(first[0], second[0]) or not op.is_weight(_tensor_of(own, sides)):
            op.labels.pin(own, f"its channels are mixed with values of no layer{op.where()}")
        else:
            op.labels.pin(own, _INPUT)
    if first[1] is not None and second[1] is not None:
        op.labels.join(
            first[1], second[1], f"only a part of what it reads has channels{op.where()}"
        )


def _tensor_of(own: Ids, sides: tuple[tuple[Tensor, Ids | None, int], ...]) -> Tensor:
    return next(tensor for tensor, labels, _ in sides if labels is own)


def _roles(op: Operation, columns: Ids | None, rows: Ids | None) -> None:
    if columns is not None:
        op.labels.mark_read(columns)
    if rows is not None:
        op.labels.mark_made(rows)


def _product(
    op: Operation, first: Tensor, second: Tensor, places: tuple[int, int], free: tuple[int, int]
) -> tuple[Ids | None, Ids | None]:
    """Contract two operands; return the labels of their free axes."""
    one, two = op.axes(first), op.axes(second)
    columns = one.get(places[0]), two.get(places[1])
    contract(op, (first, columns[0], places[0]), (second, columns[1], places[1]))
    rows = one.get(free[0]), two.get(free[1])
    if not op.is_weight(first) and not op.is_weight(second):
        op.labels.products += [own for own in columns if own is not None]
        if columns[0] is not None and columns[1] is not None:
            sides = (columns[0], op.part(first)), (columns[1], op.part(second))
            op.labels.scores.append(Product(*sides))
    op.cost(
        first.numel() * (second.shape[free[1]] if second.dim() > 1 else 1),
        one.get(0) if first.dim() > 2 else None,
        columns[0] if columns[0] is not None else columns[1],
        *rows,
    )
    inside = any(".parametrizations." in name for name in op.modules)
    if op.is_weight(first, second) and (inside or 1 in (first.dim(), second.dim())):
        return rows  # a part of a weight, or a number for its norm: who applies it makes and reads
    if op.is_weight(second):
        _roles(op, columns[1], rows[1])
    if op.is_weight(first):
        _roles(op, columns[0], rows[0])
    return rows


def matrix_product(op: Operation) -> None:
    """mm, addmm, mv, dot and their kin."""
    names = [
        n for n in ("self", "mat1", "mat2", "mat", "vec", "tensor", "vec2", "other") if n in op.args
    ]
    added = op.args["self"] if op.name.startswith("add") else None
    first, second = [op.args[n] for n in names if op.args[n] is not added or n != "self"][:2]
    one, two = first.dim() - 1, 0
    rows = _product(op, first, second, (one, two), (0 if one else -1, 1))
    out = op.out
    axes: Axes = {}
    if one and rows[0] is not None:
        axes[0] = rows[0]
    if second.dim() == 2 and rows[1] is not None:
        axes[out.dim() - 1] = rows[1]
    op.give(out, axes, op.is_weight(first, second))
    if added is not None:
        _add(op, added)


def batch_product(op: Operation) -> None:
    """Bmm and baddbmm: the batch axis is shared."""
    added = op.args["self"] if op.name != "bmm" else None
    names = ("self", "mat2") if op.name == "bmm" else ("batch1", "batch2")
    first, second = (op.args[name] for name in names)
    rows = _product(op, first, second, (2, 1), (1, 2))
    axes: Axes = {}
    weight = op.is_weight(first, second)
    pair = op.axes(first).get(0), op.axes(second).get(0)
    if pair[0] is not None and pair[1] is not None:
        op.labels.join(pair[0], pair[1], f"a part of fixed size is combined{op.where()}")
    for own, other in (
        (pair[0], second if pair[1] is None else None),
        (pair[1], first if pair[0] is None else None),
    ):
        if own is None:
            continue
        if other is not None and not is_uniform(other, 0):
            op.labels.pin(own, f"its parts meet values that belong to no layer{op.where()}")
        axes[0] = own
    if not op.is_weight(first) and not op.is_weight(second):
        op.labels.products += [own for own in (*pair, *rows) if own is not None]
    for dim, own in ((1, rows[0]), (2, rows[1])):
        if own is not None:
            axes[dim] = own
    op.give(op.out, axes, weight)
    if added is not None:
        _add(op, added)


def _add(op: Operation, added: Tensor) -> None:
    """Join what is added with the result."""
    weight = op.is_weight(op.out)
    op.give(op.out, op.align([op.out, added], op.out.shape), weight)


def linear(op: Operation) -> None:
    """X W^T + b, where it is not taken apart."""
    source, weight, bias = op.args["input"], op.args["weight"], op.args.get("bias")
    last = source.dim() - 1
    axes = op.axes(source)
    columns = axes.pop(last, None)
    own = op.axes(weight)
    contract(op, (source, columns, last), (weight, own.get(1), 1))
    op.cost(source.numel() * weight.shape[0], own.get(1), own.get(0))
    _roles(op, own.get(1), own.get(0))
    if 0 in own:
        axes[last] = own[0]
    op.give(op.out, axes)
    if bias is not None:
        _add(op, bias)


def convolution(op: Operation) -> None:
    """Convolutions of any number of groups, transposed ones too."""
    source, weight, bias = op.args["input"], op.args["weight"], op.args.get("bias")
    groups, transposed = op.args["groups"], op.args["transposed"]
    axes, own = op.axes(source), op.axes(weight)
    for dim, labels in axes.items():
        if dim > 1:
            op.labels.pin(labels, f"a kernel runs over its channels{op.where()}")
    for dim, labels in own.items():
        if dim > 1 and not op.is_weight(weight):
            op.labels.pin(labels, f"its channels are places of a kernel{op.where()}")
    read = axes.get(1)
    places = (
        op.out.numel() // op.out.shape[1] if not transposed else source.numel() // source.shape[1]
    )
    op.cost(places * weight.numel(), own.get(0), own.get(1))
    made: Ids | None
    if groups == 1:
        rows, columns = (own.get(1), own.get(0)) if transposed else (own.get(0), own.get(1))
        contract(op, (source, read, 1), (weight, columns, int(not transposed)))
        _roles(op, columns, rows)
        made = rows
    elif transposed:
        made = _grouped_transposed(op, source, weight, read, own, groups)
    else:
        made = _grouped(op, source, weight, read, own, groups)
    found: Axes = {0: axes[0]} if 0 in axes else {}
    if made is not None:
        found[1] = made
    op.give(op.out, found)
    if bias is not None and 0 in op.axes(bias) and made is not None:
        op.labels.join(made, op.axes(bias)[0])


def _factors(op: Operation, rows: Ids | None, groups: int) -> tuple[Ids | None, Ids | None]:
    """Return the labels of the groups, and of the places in each, of a convolution's channels."""
    if rows is None:
        return None, None
    if len(rows) == groups:
        return rows, None
    found = split(op, rows, [groups, len(rows) // groups])
    return found[0], found[1]


def _grouped(
    op: Operation, source: Tensor, weight: Tensor, read: Ids | None, own: Axes, groups: int
) -> Ids | None:
    rows, columns = own.get(0), own.get(1)
    outer, inner = _factors(op, read, groups)
    made, _ = _factors(op, rows, groups)
    if weight.shape[1] > 1:
        places = _fixed(columns, weight.shape[1])
        if inner is not None and columns is not None:
            op.labels.join(inner, places)
        elif columns is not None and read is not None and inner is None:
            op.labels.pin(columns, f"the groups of the convolution read one channel{op.where()}")
        elif columns is not None and read is None:
            op.labels.pin(columns, _INPUT)
        elif inner is not None:
            op.labels.pin(inner, f"its channels are mixed with values of no layer{op.where()}")
        if columns is not None:
            op.labels.mark_read(columns, groups)
    if outer is not None and made is not None:
        op.labels.join(outer, made)
        op.number(made)
        if weight.shape[0] != groups:  # else a depthwise one, whose groups are its channels
            op.labels.sizes.append((made, op.inside, "groups"))
    elif made is not None and read is None and not is_uniform(source, 1):
        op.labels.pin(made, _INPUT)
    elif outer is not None and made is None:
        op.labels.pin(outer, f"its channels are weighted by values of no layer{op.where()}")
    dense = rows is not None and (weight.shape[1] > 1 or weight.shape[0] != groups)
    if dense and rows is not None:
        op.labels.mark_made(rows)
    return rows if rows is not None else read if weight.shape[0] == source.shape[1] else None


def _grouped_transposed(
    op: Operation, source: Tensor, weight: Tensor, read: Ids | None, own: Axes, groups: int
) -> Ids | None:
    columns, places = own.get(0), own.get(1)
    if read is not None and columns is not None:
        op.labels.join(read, columns)
    elif columns is not None and not is_uniform(source, 1):
        op.labels.pin(columns, _INPUT)
    outer, inner = _factors(op, columns, groups)
    if columns is not None and (inner is not None or weight.shape[1] > 1):
        op.labels.mark_read(columns)
    if outer is not None:
        op.number(outer)
        op.labels.sizes.append((outer, op.inside, "groups"))
    if weight.shape[1] == 1:
        return outer
    if places is not None:
        op.labels.mark_made(places, groups)
    if outer is None or places is None:
        return None
    return op.labels.product([outer, places], op.find_place()).reshape(-1)


def _fixed(columns: Ids | None, size: int) -> Ids:
    return np.full(size, -1, dtype=np.int64) if columns is None else columns


def trilinear(op: Operation) -> None:
    """Three operands broadcast to one shape and multiplied, summed over some of its axes."""
    operands: list[tuple[Tensor, list[int]]] = []
    for number in (1, 2, 3):
        tensor, new = op.args[f"i{number}"], op.args[f"expand{number}"]
        whole = range(tensor.dim() + len(new))
        operands.append((tensor, [dim for dim in whole if dim not in new]))
    summed, rank = op.args["sumdim"], operands[0][0].dim() + len(op.args["expand1"])
    axes: Axes = {}
    for dim in range(rank):
        sides = [
            (t, op.axes(t).get(at.index(dim)), at.index(dim)) for t, at in operands if dim in at
        ]
        for one, two in pairwise(sides):
            if dim in summed:
                contract(op, one, two)
            elif one[1] is not None and two[1] is not None:
                op.labels.join(one[1], two[1], f"a part of fixed size is combined{op.where()}")
        own = next((labels for _, labels, _ in sides if labels is not None), None)
        for tensor, labels, _ in sides:
            if labels is not None and op.is_weight(tensor):
                _roles(op, *((labels, None) if dim in summed else (None, labels)))
        if own is not None and dim not in summed:
            axes[dim - sum(other < dim for other in summed)] = own
    op.give(op.out, axes, op.is_weight(*(tensor for tensor, _ in operands)))


RULES: dict[str, Any] = {
    **dict.fromkeys(("mm", "addmm", "mv", "addmv", "dot", "vdot"), matrix_product),
    **dict.fromkeys(("bmm", "baddbmm"), batch_product),
    "linear": linear,
    "_trilinear": trilinear,
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), convolution),
}
