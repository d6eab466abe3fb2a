"""Which rows of which layers make the queries and keys whose products are scores of attention."""

from collections.abc import Sequence

import numpy as np
import torch

from lightning_prune.graph.group import Scores
from lightning_prune.graph.label_axes import LabelAxes
from lightning_prune.graph.label_places import Places
from lightning_prune.graph.labels import Ids


def scores_of(axes: LabelAxes, places: Places, number: int) -> tuple[Scores, ...]:
    """Return the pairs of rows that a group's channels have in sums over products.

    A head of keys that serves several heads of queries is in a pair with each.

    Args:
        axes: The axes of all labels.
        places: Which labels belong to which group.
        number: The group's.
    """
    found: list[Scores] = []
    for product in axes.labels.scores:
        channel = places.channel(product.first[0], number)
        if len(channel) < 2 or (channel < 0).any():
            continue
        sides = [rows_of(axes, *side) for side in product]
        rows = [side for side in sides if side is not None]
        if len(rows) < 2 or rows[0].shape[1] % rows[1].shape[1]:
            continue
        queries, keys = rows
        keys = keys.repeat(queries.shape[1] // keys.shape[1], axis=1)
        layers = [_layers(axes, side) for side in (queries, keys)]
        if len(layers[0]) == len(layers[1]) == 1:
            found.append(
                Scores(
                    layers[0][0],
                    torch.from_numpy(axes.position[queries.ravel()]),
                    layers[1][0],
                    torch.from_numpy(axes.position[keys.ravel()]),
                    torch.from_numpy(channel.repeat(queries.shape[1])),
                )
            )
    return tuple(found)


def rows_of(axes: LabelAxes, own: Ids, part: frozenset[int]) -> Ids | None:
    """Return the rows (n, m) of weights that make n positions of an axis; None where none do.

    Args:
        axes: The axes of all labels.
        own: (n,) labels of the positions.
        part: Labels that were taken of other axes: of rows (3, heads, width) the queries'.
    """
    if (own < 0).any():
        return None
    if (axes.axis[own] >= 0).all():
        return own[:, None]
    for lattice in reversed(axes.labels.lattices):
        for dim, factor in enumerate(lattice.factors):
            place = {label: n for n, label in enumerate(factor.tolist())}
            if not all(label in place for label in own.tolist()):
                continue
            rows = lattice.rows.take([place[label] for label in own.tolist()], axis=dim)
            for other, labels in enumerate(lattice.factors):
                taken = np.isin(labels, list(part))
                if other != dim and taken.any():
                    rows = rows.compress(taken, axis=other)
            rows = np.moveaxis(rows, dim, 0).reshape(len(own), -1)
            made = rows_of(axes, rows.ravel(), part)
            if made is not None:
                return made.reshape(len(own), -1)
    return None


def _layers(axes: LabelAxes, rows: Ids) -> Sequence[str]:
    owners = (axes.axes[axis].owner for axis in np.unique(axes.axis[rows]).tolist())
    return list(dict.fromkeys(owners))
