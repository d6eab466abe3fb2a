"""Operations that turn channels into pixels, and pixels into channels."""

import math
from collections.abc import Sequence

import numpy as np

from lightning_prune.graph.rules.operation import Axes, Operation, axis_of
from lightning_prune.graph.rules.reshaping import merged, split


def _stay_in_picture(op: Operation, axes: Axes, places: Sequence[int]) -> None:
    """Pin what lies along the axes of the picture, and follow it no longer."""
    for place in places:
        if place in axes:
            op.labels.pin(axes.pop(place), f"it lies along the picture{op.where()}")


def pixel_shuffle(op: Operation) -> None:
    """(B, C r r, H, W) to (B, C, H r, W r): the r r places of a channel go together."""
    source, factor = op.args["self"], op.args["upscale_factor"]
    axes, dim = op.axes(source), source.dim() - 3
    _stay_in_picture(op, axes, (dim + 1, dim + 2))
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
    _stay_in_picture(op, axes, (dim + 1, dim + 2))
    if dim in axes:
        axes[dim] = np.repeat(axes[dim], factor**2)
    op.give(op.out, axes, op.is_weight(source))


def channel_shuffle(op: Operation) -> None:
    """Channels (g, c) in the order (c, g)."""
    source, groups = op.args["self"], op.args["groups"]
    axes = op.axes(source)
    if 1 in axes:
        places = len(axes[1]) // groups
        outer, inner = split(op, axes[1], [groups, places])
        axes[1] = merged(op, [(places, inner), (groups, outer)])
    op.give(op.out, axes, op.is_weight(source))


def im2col(op: Operation) -> None:
    """(B, C, H, W) to (B, C k k, L): the places of a kernel belong to their channel."""
    source = op.args["self"]
    axes, dim = op.axes(source), source.dim() - 3
    places = math.prod(op.args["kernel_size"])
    left = {at: own for at, own in axes.items() if at < dim}
    if dim in axes:
        left[dim] = np.repeat(axes[dim], places)
    _stay_in_picture(op, axes, (dim + 1, dim + 2))
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
    _stay_in_picture(op, axes, (dim + 1,))
    op.give(op.out, left, op.is_weight(source))


def unfold(op: Operation) -> None:
    """Windows along an axis, on a new last axis."""
    source = op.args["self"]
    dim, axes = axis_of(op.args["dimension"], source), op.axes(source)
    if dim in axes:
        op.labels.pin(axes.pop(dim), f"windows run over its channels{op.where()}")
    op.give(op.out, axes, op.is_weight(source))
