"""Operations that move values: labels move along."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lightning_prune.graph.labels import NONE
from lightning_prune.graph.rules.operation import Axes, Operation, axis_of
from lightning_prune.graph.rules.pictures import (
    channel_shuffle,
    col2im,
    im2col,
    pixel_shuffle,
    pixel_unshuffle,
    unfold,
)
from lightning_prune.graph.rules.reshaping import view
from lightning_prune.graph.rules.selecting import (
    embedding,
    gather,
    index,
    index_select,
    select,
    slice_,
    split_,
)

# --- one rule an operation ----------------------------------------------------------------------


def same(op: Operation) -> None:
    """Copies and casts: nothing moves."""
    source = op.args["self"]
    op.give(op.out, op.axes(source), op.is_weight(source))


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
