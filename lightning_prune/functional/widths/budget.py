"""Widths of layers under a MAC budget."""

from collections.abc import Sequence

from lightning_prune.functional.widths.fit import AllowedWidths, Cost, fit_widths
from lightning_prune.functional.widths.width import allowed_widths, clip_width


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
        counts: N_g, the count each of the G layers would choose by itself (its knee).
        channels: C_g, the number of channels of each layer.
        cost: Cost of G widths, in the unit of ``budget`` (MACs); see ``fit_widths``.
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
    allowed = []
    for count, wide, multiple in zip(counts, channels, multiples, strict=True):
        own = allowed_widths(wide, keep_range, multiple)
        allowed.append(AllowedWidths(own, [width / count for width in own[1:]]))
    return fit_widths(widths(low), allowed, cost, budget)
