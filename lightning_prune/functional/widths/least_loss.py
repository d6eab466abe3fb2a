"""Widths that lose least under a budget, where the loss of every width was measured."""

from collections.abc import Sequence

from lightning_prune.functional.widths.fit import AllowedWidths, Cost, fit_widths


def least_loss_widths(
    widths: Sequence[Sequence[int]],
    losses: Sequence[Sequence[float]],
    cost: Cost,
    budget: float,
    power: float = 1.0,
) -> list[int]:
    r"""Choose one width for each group so that the sum of the losses is small within a budget.

    Step by step the group becomes narrower whose next width loses least for what it saves,

    .. math:: \min_g \frac{(l_g(w') - l_g(w))^p}{cost(w) - cost(w')}

    until the budget is met; costs are products of widths, so they are computed again at each step.
    Then groups are widened while the budget holds, those first that gain most for what they cost.

    Args:
        widths: For each of G groups the widths it may have, descending.
        losses: The loss at each of them, not falling.
        cost: Cost of G widths; see ``fit_widths``.
        budget: What the widths may cost at most.
        power: The exponent p; below 1 large losses are feared less.

    Raises:
        ValueError: the narrowest widths cost more than the budget.

    >>> least_loss_widths([[4, 2], [4, 2]], [[0.0, 0.5], [0.0, 0.1]], sum, 6)
    [4, 2]
    """
    places = [0] * len(widths)
    found = [own[0] for own in widths]
    if cost([own[-1] for own in widths]) > budget:
        raise ValueError(
            f"the budget {budget:.6g} cannot be met: the narrowest widths cost "
            f"{cost([own[-1] for own in widths]):.6g}"
        )
    ranks = [[0.0] * (len(own) - 1) for own in widths]
    now = cost(found)
    while now > budget:
        best: tuple[float, int, int, float] | None = None
        for group, own in enumerate(widths):
            start = places[group]
            # A step that saves much may lie behind one that loses much.
            for place in range(start + 1, min(start + _AHEAD, len(own) - 1) + 1):
                other = list(found)
                other[group] = own[place]
                saved = now - cost(other)
                lost = max(0.0, losses[group][place] - losses[group][start])
                rate = lost**power / saved if saved > 0 else float("inf")
                if best is None or rate < best[0]:
                    best = rate, group, place, now - saved
        assert best is not None
        rate, group, place, now = best
        for passed in range(places[group], place):
            ranks[group][passed] = -rate
        places[group], found[group] = place, widths[group][place]
    allowed = [
        AllowedWidths(list(own[: place + 1])[::-1], rank[:place][::-1])
        for own, place, rank in zip(widths, places, ranks, strict=True)
    ]
    return fit_widths(found, allowed, cost, budget)


_AHEAD = 3
