"""Widths that meet a budget from below: widened while it holds, improved by exchanges."""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Cost = Callable[[Sequence[int]], float]
"""Cost of the widths of G layers; it may not fall where a width grows, nor where more grow."""


@dataclass(frozen=True)
class AllowedWidths:
    """The widths that a layer may have, and when it comes to each.

    Attributes:
        widths: N widths, ascending.
        ranks: N - 1 ranks; the step from ``widths[i]`` to ``widths[i + 1]`` is made in the order
            of ``ranks[i]`` among the steps of all layers, lowest first.
    """

    widths: Sequence[int]
    ranks: Sequence[float]


def fit_widths(
    widths: Sequence[int],
    allowed: Sequence[AllowedWidths],
    cost: Cost,
    budget: float,
    tolerance: float = math.inf,
) -> list[int]:
    """Widen layers step by step while they fit a budget, then exchange steps between layers.

    The step of the lowest rank comes first; a layer whose next step does not fit stays as it is.
    Where more than ``tolerance`` of the budget is left then, one layer is widened and another one
    narrowed by a step: of all exchanges that come within the tolerance the one whose ranks differ
    least, else the one that leaves least of the budget; then layers are widened again.

    Args:
        widths: G widths, each of them allowed, that fit the budget.
        allowed: The widths that each layer may have.
        cost: Cost of G widths, whose increments do not fall as other layers grow (MACs).
        budget: What the widths may cost at most.
        tolerance: How much of the budget may be left before steps are exchanged.

    Returns:
        G widths; none of them can be widened by a step within the budget.

    >>> first, second = AllowedWidths([8, 16, 24], [1.0, 3.0]), AllowedWidths([8, 16], [2.0])
    >>> fit_widths([8, 8], [first, second], sum, 39)
    [16, 16]
    """
    found = _widened(widths, allowed, cost, budget)
    while budget - cost(found) > tolerance:
        better = _exchanged(found, allowed, cost, budget, tolerance)
        if better is None:
            break
        found = _widened(better, allowed, cost, budget)
    return found


def _widened(
    widths: Sequence[int], allowed: Sequence[AllowedWidths], cost: Cost, budget: float
) -> list[int]:
    found = list(widths)
    places = [own.widths.index(width) for width, own in zip(found, allowed, strict=True)]
    waiting = [
        (own.ranks[place], layer, place)
        for layer, (place, own) in enumerate(zip(places, allowed, strict=True))
        if place < len(own.ranks)
    ]
    heapq.heapify(waiting)
    while waiting:
        _, layer, place = heapq.heappop(waiting)
        own = allowed[layer]
        before, found[layer] = found[layer], own.widths[place + 1]
        if cost(found) > budget:
            # What does not fit now will not fit later, when the other layers cost more.
            found[layer] = before
        elif place + 1 < len(own.ranks):
            heapq.heappush(waiting, (own.ranks[place + 1], layer, place + 1))
    return found


def _exchanged(
    widths: Sequence[int],
    allowed: Sequence[AllowedWidths],
    cost: Cost,
    budget: float,
    tolerance: float,
) -> list[int] | None:
    """Return the widths after the best exchange; None where none leaves less than before."""
    up, down = [], []
    for layer, (width, own) in enumerate(zip(widths, allowed, strict=True)):
        place = own.widths.index(width)
        if place < len(own.ranks):
            up.append((layer, own.widths[place + 1], own.ranks[place]))
        if place > 0:
            down.append((layer, own.widths[place - 1], own.ranks[place - 1]))
    best: tuple[tuple[bool, float], list[int]] | None = None
    now = cost(widths)
    for (wider, more, late), (narrower, less, early) in itertools.product(up, down):
        if wider == narrower:
            continue
        other = list(widths)
        other[wider], other[narrower] = more, less
        spent = cost(other)
        if not now < spent <= budget:
            continue
        close = budget - spent <= tolerance
        key = (not close, late - early if close else budget - spent)
        if best is None or key < best[0]:
            best = key, other
    return None if best is None else best[1]
