"""Follows writes into views of a tensor back to the tensor."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from lightning_prune.graph.labels import NONE, TensorLabels, labels_of, set_labels
from lightning_prune.graph.rules.operation import Operation
from lightning_prune.graph.view_bases import view_of


def write_back(op: Operation, view: Tensor, before: TensorLabels | None) -> None:
    """Label what a written tensor is a view of as the tensor now is.

    Args:
        op: The operation that wrote.
        view: What it wrote into.
        before: The labels that this had.
    """
    base = view_of(view)
    now = labels_of(view)
    if base is None or now is None or (before is not None and before.axes == now.axes):
        return
    name, bound = base
    source = bound["self"]
    axes = dict(found.axes) if (found := labels_of(source)) is not None else {}
    mapping = _mapping(name, bound, source, view)
    for dim, own in now.axes.items():
        place = mapping.get(dim)
        if place is None:
            op.labels.pin(own, f"its channels are written into a part{op.where()}")
        elif len(own) == source.shape[place]:
            if place in axes:
                op.labels.join(axes[place], own)
            else:
                axes[place] = own
        else:
            where = slice(bound["start"], bound["end"], bound["step"])
            whole = axes.get(place, np.full(source.shape[place], NONE, dtype=np.int64)).copy()
            whole[where] = own
            axes[place] = whole
    earlier = labels_of(source)
    set_labels(source, TensorLabels(axes))
    write_back(op, source, earlier)


def _mapping(name: str, bound: Mapping[str, Any], source: Tensor, view: Tensor) -> dict[int, int]:
    """Return the axis of a tensor for each axis of a view of it, as far as one stands for one."""
    dims = list(range(source.dim()))
    if name in ("slice", "alias", "detach"):
        return {dim: dim for dim in dims}
    if name == "select":
        taken = bound["dim"] % source.dim()
        return dict(enumerate(dim for dim in dims if dim != taken))
    if name == "permute":
        return {n: dim % source.dim() for n, dim in enumerate(bound["dims"])}
    if name == "t":
        return dict(enumerate(dims[::-1]))
    if name == "transpose":
        first, second = bound["dim0"] % source.dim(), bound["dim1"] % source.dim()
        dims[first], dims[second] = dims[second], dims[first]
        return dict(enumerate(dims))
    if name in ("view", "_unsafe_view", "unsqueeze", "squeeze"):
        old = [dim for dim in dims if source.shape[dim] != 1]
        new = [dim for dim in range(view.dim()) if view.shape[dim] != 1]
        if [source.shape[dim] for dim in old] == [view.shape[dim] for dim in new]:
            return dict(zip(new, old, strict=True))
    return {}
