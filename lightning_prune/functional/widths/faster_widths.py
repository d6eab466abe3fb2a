"""Widths that cost as much and take less time."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Batch = Callable[[Values], Values]
"""A function of many choices of widths at once, (N, G) -> (N,)."""

_AT_ONCE = 4096  # pairs of moves whose cost and time are computed together
_STEPS = (-4, -2, -1, 1, 2, 4)  # choices that a layer goes at once
_LEAST = 1e-9  # relative gain of time below which no width changes


def faster_widths(
    widths: Sequence[int],
    choices: Sequence[Sequence[int]],
    time: Batch,
    cost: Batch,
    low: float,
    high: float,
) -> list[int]:
    """Exchange widths between layers for less time, while the cost stays where it is.

    A move of one layer, or of two at once, is made again and again until none saves time; a move
    goes one, two or four choices up or down. Pairs are tried in the order of the sum of what both
    save alone; of the first few thousand among which one saves time the best is made.

    Args:
        widths: G widths whose cost lies within [low, high].
        choices: The widths that each layer may have.
        time: Time of G widths; what is made less.
        cost: Cost of G widths (MACs).
        low: Least cost allowed.
        high: Largest cost allowed.

    Returns:
        G widths, whose time is at most that of the given ones.

    Raises:
        ValueError: a given width is none of its choices, or all cost more or less than allowed.

    >>> def time(w):  # the second layer works in vectors of 16
    ...     return w[:, 0] + np.ceil(w[:, 1] / 16) * 16
    >>> faster_widths([40, 24], [[32, 40, 48], [16, 24, 32]], time, lambda w: w.sum(1), 60, 64)
    [32, 32]
    """
    now = np.array(widths, dtype=np.float64)
    spent, took = (float(value(now[None])[0]) for value in (cost, time))
    if not low <= spent <= high:
        raise ValueError(f"the widths cost {spent}, which is outside [{low}, {high}]")
    ordered = [sorted(allowed) for allowed in choices]
    while True:
        layer, target = _moves(now, ordered)
        single = np.repeat(now[None], len(layer), axis=0)
        single[np.arange(len(layer)), layer] = target
        saved = took - time(single)
        first, second = np.triu_indices(len(layer), 1)
        gain = saved[first] + saved[second]
        good = (layer[first] != layer[second]) & (gain > _LEAST * took)
        first, second, gain = first[good], second[good], gain[good]
        order = np.argsort(-gain, kind="stable")
        for start in range(0, len(order) + 1, _AT_ONCE):
            pairs = order[start : start + _AT_ONCE]
            tried = single[first[pairs]]
            tried[np.arange(len(pairs)), layer[second[pairs]]] = target[second[pairs]]
            if start == 0:
                tried = np.concatenate([single, tried])
            costs = cost(tried)
            tried, costs = (part[(low <= costs) & (costs <= high)] for part in (tried, costs))
            times = time(tried)
            if len(times) and times.min() < took * (1 - _LEAST):
                best = int(times.argmin())
                now, took = tried[best], float(times[best])
                break
        else:
            return [int(width) for width in now]


def _moves(now: Values, ordered: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], Values]:
    """Return the layers and the new widths of all moves of one layer."""
    layers, targets = [], []
    for layer, (width, allowed) in enumerate(zip(now, ordered, strict=True)):
        place = allowed.index(int(width))
        for step in _STEPS:
            if 0 <= place + step < len(allowed):
                layers.append(layer)
                targets.append(allowed[place + step])
    return np.array(layers, dtype=np.int64), np.array(targets, dtype=np.float64)
