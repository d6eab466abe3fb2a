"""Operations that move values: labels move along."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_prune.graph.labels import NONE, Ids
from lightning_prune.graph.rules.operation import Axes, Operation, axis_of


def reshape(op: Operation, axes: Axes, old: Sequence[int], new: Sequence[int]) -> Axes:
    """Return the labels after a reshape.

    Axes whose products agree are taken apart from the others, so that labels stay one wide where
    they do not vary.
    """
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
        core = op.labels.product(labelled, op.find_place()) if _whole(labelled) else None
        if core is not None:
            op.number(core.reshape(-1))
        if core is None:
            for own in labelled:
                op.labels.pin(own, f"axes of which only a part has channels are joined{op.where()}")
            return np.full(math.prod(sizes), NONE, dtype=np.int64)
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


# --- one rule an operation ----------------------------------------------------------------------


def same(op: Operation) -> None:
    """Copies and casts: nothing moves."""
    source = op.args["self"]
    op.give(op.out, op.axes(source), op.is_weight(source))


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


def permute(op: Operation) -> None:
    """permute, transpose, t, movedim."""
    source = op.args["self"]
    order = list(range(source.dim()))
    if op.name in ("permute", "permute_copy"):
        order = [axis_of(dim, source) for dim in op.args["dims"]]
    elif op.name in ("t", "t_", "t_copy", "numpy_T", "mT"):
        order = order[::-1]
    else:
        first, second = (axis_of(op.args[key], source) for key in ("dim0", "dim1"))
        order[first], order[second] = order[second], order[first]
    axes = op.axes(source)
    op.give(
        op.out,
        {place: axes[dim] for place, dim in enumerate(order) if dim in axes},
        op.is_weight(source),
    )


def slice_(op: Operation) -> None:
    """A slice of one axis."""
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
    if dim in axes:
        op.labels.pin(axes.pop(dim), f"its places are read one by one{op.where()}")
    left = {place - (place > dim): own for place, own in axes.items()}
    for out in op.out if isinstance(op.out, list | tuple) else [op.out]:
        op.give(out, left, op.is_weight(source))


def split_(op: Operation) -> None:
    """Chunk and split: the i-th of all equal parts have the same fate."""
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
        for part in op.out:
            op.give(part, {**axes, dim: places}, weight)
        return
    op.number(whole)
    starts = np.cumsum([0, *sizes])
    for part, start, size in zip(op.out, starts, sizes, strict=False):
        own = whole[start : start + size]
        if size == 1:
            op.labels.pin(own, f"it is read by itself{op.where()}")
        op.give(part, {**axes, dim: own} if size > 1 else axes, weight)


def expand(op: Operation) -> None:
    """Axes of one position are repeated; new ones come in front."""
    source, out = op.args["self"], op.out
    shift = out.dim() - source.dim()
    axes = {dim + shift: own for dim, own in op.axes(source).items()}
    for dim, own in axes.items():
        if op.args.get("size", ())[dim : dim + 1] not in ([], [-1]):
            op.number(own)
    op.give(out, axes, op.is_weight(source))


def repeat(op: Operation) -> None:
    """All of an axis again and again."""
    source, out = op.args["self"], op.out
    shift = out.dim() - source.dim()
    axes = {}
    for dim, own in op.axes(source).items():
        axes[dim + shift] = np.tile(own, out.shape[dim + shift] // max(1, len(own)))
    op.give(out, axes, op.is_weight(source))


def cat(op: Operation) -> None:
    """Tensors one after the other."""
    tensors = [t for t in op.args["tensors"] if t.dim() == op.out.dim() or t.numel()]
    dim = axis_of(op.args.get("dim", 0), op.out)
    joined: Axes = {}
    if any(dim in op.axes(tensor) for tensor in tensors):
        joined[dim] = np.concatenate(
            [
                op.axes(t).get(dim, np.full(t.shape[dim], NONE, dtype=np.int64))
                for t in tensors
                if t.dim() == op.out.dim()
            ]
        )
    others = _across(op, tensors, dim)
    op.give(op.out, {**others, **joined}, op.is_weight(*tensors))


def stack(op: Operation) -> None:
    """Tensors side by side on a new axis."""
    tensors = op.args["tensors"]
    dim = op.args.get("dim", 0) % op.out.dim()
    others = {place + (place >= dim): own for place, own in _across(op, tensors, -1).items()}
    op.give(op.out, others, op.is_weight(*tensors))


def _across(op: Operation, tensors: Sequence[Tensor], dim: int) -> Axes:
    """Join the labels of tensors on all axes but one."""
    found: Axes = {}
    for place in range(max((t.dim() for t in tensors), default=0)):
        if place == dim:
            continue
        given = [(t, op.axes(t).get(place)) for t in tensors if t.dim() > place]
        labelled = [own for _, own in given if own is not None]
        for other in labelled[1:]:
            op.labels.join(labelled[0], other)
        if labelled:
            found[place] = labelled[0]
            if any(own is None and bool(t.detach().any()) for t, own in given):
                op.labels.pin(
                    labelled[0],
                    f"its channels stand beside values that belong to no layer{op.where()}",
                )
    return found


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


def roll(op: Operation) -> None:
    """Places move in a circle."""
    source = op.args["self"]
    axes = op.axes(source)
    dims = [axis_of(dim, source) for dim in op.args["dims"]]
    if not dims:
        op.pin(axes, f"its channels are rolled{op.where()}")
        axes = {}
    for dim, shift in zip(dims, op.args.get("shifts", dims), strict=True):
        if dim in axes:
            axes[dim] = np.roll(axes[dim], shift) if op.name == "roll" else axes[dim][::-1].copy()
    op.give(op.out, axes, op.is_weight(source))


def pad(op: Operation) -> None:
    """Zeros around: they belong to nothing, channels keep their labels."""
    source, amounts = op.args["self"], list(op.args.get("pad", op.args.get("padding", [])))
    axes = op.axes(source)
    for number in range(len(amounts) // 2):
        dim = source.dim() - 1 - number
        before, after = amounts[2 * number], amounts[2 * number + 1]
        if dim not in axes or (before == 0 and after == 0):
            continue
        op.number(axes[dim])
        own = axes[dim][max(0, -before) : len(axes[dim]) + min(0, after)]
        blank = [np.full(max(0, n), NONE, dtype=np.int64) for n in (before, after)]
        axes[dim] = np.concatenate([blank[0], own, blank[1]])
    op.give(op.out, axes, op.is_weight(source))


def pixel_shuffle(op: Operation) -> None:
    """(B, C r r, H, W) to (B, C, H r, W r): the r r places of a channel go together."""
    source, factor = op.args["self"], op.args["upscale_factor"]
    axes, dim = op.axes(source), source.dim() - 3
    for place in (dim + 1, dim + 2):
        if place in axes:
            op.labels.pin(axes.pop(place), f"it lies along the picture{op.where()}")
    if dim in axes:
        found = split(op, axes[dim], [len(axes[dim]) // factor**2, factor**2])
        if found[1] is not None:
            op.labels.pin(found[1], f"its places become pixels{op.where()}")
        if found[0] is None:
            del axes[dim]
        else:
            axes[dim] = found[0]
    op.give(op.out, axes, op.is_weight(source))


def pixel_unshuffle(op: Operation) -> None:
    """(B, C, H r, W r) to (B, C r r, H, W)."""
    source, factor = op.args["self"], op.args["downscale_factor"]
    axes, dim = op.axes(source), source.dim() - 3
    for place in (dim + 1, dim + 2):
        if place in axes:
            op.labels.pin(axes.pop(place), f"it lies along the picture{op.where()}")
    if dim in axes:
        axes[dim] = np.repeat(axes[dim], factor**2)
    op.give(op.out, axes, op.is_weight(source))


def channel_shuffle(op: Operation) -> None:
    """Channels (g, c) in the order (c, g)."""
    source, groups = op.args["self"], op.args["groups"]
    axes = op.axes(source)
    if 1 in axes:
        size = len(axes[1])
        axes[1] = axes[1].reshape(groups, size // groups).T.reshape(-1)
        op.number(axes[1])
        factors = split(op, axes[1], [size // groups, groups])
        found = merged(op, [(size // groups, factors[0]), (groups, factors[1])])
        axes[1] = found
    op.give(op.out, axes, op.is_weight(source))


def im2col(op: Operation) -> None:
    """(B, C, H, W) to (B, C k k, L): the places of a kernel belong to their channel."""
    source = op.args["self"]
    axes, dim = op.axes(source), source.dim() - 3
    places = math.prod(op.args["kernel_size"])
    left = {at: own for at, own in axes.items() if at < dim}
    if dim in axes:
        left[dim] = np.repeat(axes[dim], places)
    for at in (dim + 1, dim + 2):
        if at in axes:
            op.labels.pin(axes[at], f"it lies along the picture{op.where()}")
    op.give(op.out, left, op.is_weight(source))


def col2im(op: Operation) -> None:
    """(B, C k k, L) to (B, C, H, W)."""
    source = op.args["self"]
    axes, dim = op.axes(source), source.dim() - 2
    places = math.prod(op.args["kernel_size"])
    left = {at: own for at, own in axes.items() if at < dim}
    if dim in axes:
        found = split(op, axes[dim], [len(axes[dim]) // places, places])
        if found[1] is not None:
            op.labels.pin(found[1], f"its places become pixels{op.where()}")
        if found[0] is not None:
            left[dim] = found[0]
    if dim + 1 in axes:
        op.labels.pin(axes[dim + 1], f"it lies along the picture{op.where()}")
    op.give(op.out, left, op.is_weight(source))


def unfold(op: Operation) -> None:
    """Windows along an axis, on a new last axis."""
    source = op.args["self"]
    dim, axes = axis_of(op.args["dimension"], source), op.axes(source)
    if dim in axes:
        op.labels.pin(axes.pop(dim), f"windows run over its channels{op.where()}")
    op.give(op.out, axes, op.is_weight(source))


def as_strided(op: Operation) -> None:
    """Kept where nothing moves."""
    source, out = op.args["self"], op.out
    axes = op.axes(source)
    if source.shape == out.shape and source.stride() == out.stride():
        op.give(out, axes, op.is_weight(source))
    else:
        op.pin(axes, f"its channels are read by as_strided{op.where()}")


def diagonal(op: Operation) -> None:
    """Two axes become one."""
    source = op.args["self"]
    axes = op.axes(source)
    taken = [axis_of(op.args[key], source) for key in ("dim1", "dim2")]
    for dim in taken:
        if dim in axes:
            op.labels.pin(axes.pop(dim), f"a diagonal is read{op.where()}")
    left = [dim for dim in range(source.dim()) if dim not in taken]
    op.give(op.out, {n: axes[d] for n, d in enumerate(left) if d in axes}, op.is_weight(source))


RULES: dict[str, Any] = {
    **dict.fromkeys(
        (
            "clone", "contiguous", "detach", "detach_", "alias", "_to_copy", "lift", "lift_fresh",
            "lift_fresh_copy", "positive", "requires_grad_", "resolve_conj", "resolve_neg", "to",
            "_conj", "view_as", "conj",
        ),
        same,
    ),
    **dict.fromkeys(
        (
            "view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "squeeze", "squeeze_",
            "unsqueeze", "unsqueeze_", "squeeze_copy", "unsqueeze_copy", "flatten", "unflatten",
            "_reshape_copy",
        ),
        view,
    ),
    **dict.fromkeys(
        ("permute", "transpose", "transpose_", "t", "t_", "permute_copy", "transpose_copy",
         "t_copy"),
        permute,
    ),
    "slice": slice_, "slice_copy": slice_, "select": select, "select_copy": select,
    "unbind": select, "unbind_copy": select,
    **dict.fromkeys(
        ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk",
         "unsafe_chunk", "split_copy", "split_with_sizes_copy"),
        split_,
    ),
    "expand": expand, "expand_copy": expand, "repeat": repeat, "cat": cat, "stack": stack,
    "index": index, "index_select": index_select, "gather": gather, "embedding": embedding,
    "roll": roll, "flip": roll, "constant_pad_nd": pad, "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle, "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle, "im2col": im2col, "col2im": col2im,
    "unfold": unfold, "unfold_copy": unfold, "as_strided": as_strided, "diagonal": diagonal,
}  # fmt: skip
