"""What of the MACs that belong to no layer goes with the widths of groups."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lightning_prune.graph.group import Group
from lightning_prune.graph.labels import NONE, Ids, Labels


def with_products(
    groups: Sequence[Group], held: Sequence[Ids], labels: Labels
) -> tuple[Group, ...]:
    """Return groups with what of the MACs that belong to no layer goes with their widths.

    The MACs of an operation are a product over its axes, and on each the fractions of what was
    concatenated add up; those of groups that are factors of the same rows multiply.

    Args:
        groups: The groups.
        held: The labels of each group's channels.
        labels: What a trace has learned.
    """
    owners = _owners(held, labels.count)
    total = sum(macs for macs, _ in labels.costs)
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for macs, axes in labels.costs:
        terms: dict[tuple[int, ...], float] = {(): macs / total}
        for axis in axes:
            sets, counts = np.unique(
                np.where(axis >= 0, owners[:, axis], NONE), axis=1, return_counts=True
            )
            terms = {
                (*own, *(int(number) for number in numbers if number >= 0)): (
                    part * int(count) / len(axis)
                )
                for own, part in terms.items()
                for numbers, count in zip(sets.T, counts, strict=True)
            }
        for own, part in terms.items():
            if own:
                found[tuple(sorted(own))] += part
    parts: dict[int, list[tuple[float, tuple[str, ...]]]] = defaultdict(list)
    for own, part in found.items():
        parts[own[0]].append((part, tuple(groups[number].name for number in own)))
    return tuple(
        replace(group, products=tuple(parts[number])) for number, group in enumerate(groups)
    )


def _owners(held: Sequence[Ids], count: int) -> Ids:
    """Return the numbers of the groups of every label, -1 where there is none: (factors, labels).

    >>> _owners([np.array([0, 1]), np.array([1, 2])], 4).tolist()
    [[0, 0, -1, -1], [-1, 1, 1, -1]]
    """
    owners = [np.full(count, NONE, dtype=np.int64)]
    for number, own in enumerate(held):
        free = next((one for one in owners if (one[own] == NONE).all()), None)
        if free is None:
            free = np.full(count, NONE, dtype=np.int64)
            owners.append(free)
        free[own] = number
    return np.stack(owners)
