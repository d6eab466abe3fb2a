"""Widths of layers under a MAC budget."""

import heapq
from collections.abc import Callable, Sequence

from lightning_prune.functional.widths.width import allowed_widths, clip_width

Cost = Callable[[Sequence[int]], float]
"""Cost of the widths of G layers; it may not fall where a width grows, nor where more grow."""


def give_back(
    widths: Sequence[int],
    wider: Sequence[Sequence[tuple[float, int]]],
    cost: Cost,
    budget: float,
) -> list[int]:
    """Widen layers, one rung after the other, while they fit a budget.

    The rung of the lowest rank comes first; a layer whose next rung does not fit stays as it is.

    Args:
        widths: G widths that fit the budget.
        wider: For each layer its wider rungs as (rank, width), in the order in which they come.
        cost: Cost of G widths, whose increments do not fall as other layers grow (MACs).
        budget: What the widths may cost at most.

    Returns:
        G widths; none of them can take its next rung within the budget.

    >>> give_back([8, 8], [[(1.0, 16), (3.0, 24)], [(2.0, 16)]], sum, 39)
    [16, 16]
    """
    found = list(widths)
    waiting = [(rungs[0][0], layer, 0) for layer, rungs in enumerate(wider) if rungs]
    heapq.heapify(waiting)
    while waiting:
        _, layer, place = heapq.heappop(waiting)
        before, found[layer] = found[layer], wider[layer][place][1]
        if cost(found) > budget:
            # What does not fit now will not fit later, when the other layers cost more.
            found[layer] = before
        elif place + 1 < len(wider[layer]):
            heapq.heappush(waiting, (wider[layer][place + 1][0], layer, place + 1))
    return found


def scale_widths(
    counts: Sequence[int],
    channels: Sequence[int],
    cost: Cost,
    budget: float,
    keep_range: tuple[float, float] | None = (0.25, 0.5),
    round_to: int | Sequence[int] = 1,
) -> list[int]:
    r"""Scale the channel counts of all layers by one factor so that they fit a budget.

    .. math:: w_g = clip(round(f \cdot n_g)), \qquad
        f = \max \{ f : cost(w) \le budget \}

    With rounding many layers change their width at the same factor, and one block of each can
    cost a good part of the budget: what is left of it then widens single layers by a block, those
    first whose factor stays smallest.

    Args:
        counts: n_g, the count each of the G layers would choose by itself (its knee).
        channels: C_g, the number of channels of each layer.
        cost: Cost of G widths, in the unit of ``budget`` (MACs); see ``give_back``.
        budget: What the widths may cost at most.
        keep_range: Bounds of every width as fractions of C_g; None: from 1 channel to all.
        round_to: Widths are multiples of it where the bounds hold one; one for each layer, or one
            for all.

    Raises:
        ValueError: the narrowest widths that the bounds allow still cost more.

    >>> scale_widths([4, 8], [16, 16], sum, 10, keep_range=None)
    [3, 7]
    >>> scale_widths([16, 16], [64, 64], sum, 30, keep_range=None, round_to=8)
    [16, 8]
    """
    multiples = [round_to] * len(channels) if isinstance(round_to, int) else round_to

    def widths(factor: float) -> list[int]:
        return [
            clip_width(max(1, round(factor * count)), wide, keep_range, multiple)[0]
            for count, wide, multiple in zip(counts, channels, multiples, strict=True)
        ]

    low, high = (
        0.0,
        max((wide / count for count, wide in zip(counts, channels, strict=True)), default=1.0),
    )
    if cost(widths(low)) > budget:
        raise ValueError(
            f"the budget {budget:.6g} cannot be met: the narrowest widths within the bounds cost "
            f"{cost(widths(low)):.6g}"
        )
    if cost(widths(high)) <= budget:
        return widths(high)
    for _ in range(60):
        middle = (low + high) / 2
        if cost(widths(middle)) <= budget:
            low = middle
        else:
            high = middle
    found = widths(low)
    wider = [
        [
            (rung / count, rung)
            for rung in allowed_widths(wide, keep_range, multiple)
            if rung > width
        ]
        for count, wide, width, multiple in zip(counts, channels, found, multiples, strict=True)
    ]
    return give_back(found, wider, cost, budget)
