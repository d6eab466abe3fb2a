"""Widths of layers under a MAC budget: one common factor on every layer's own count."""

from collections.abc import Callable, Sequence

from .width import clip_width


def scale_widths(
    counts: Sequence[int],
    channels: Sequence[int],
    cost: Callable[[Sequence[int]], float],
    budget: float,
    keep_range: tuple[float, float] | None = (0.25, 0.5),
    round_to: int = 1,
) -> list[int]:
    r"""Scale the channel counts of all layers by one factor so that they fit a budget.

    .. math:: w_g = clip(round(f \cdot n_g)), \qquad
        f = \max \{ f : cost(w) \le budget \}

    Args:
        counts: n_g, the count each of the G layers would choose by itself (its knee).
        channels: C_g, the number of channels of each layer.
        cost: Monotone cost of G widths, in the unit of ``budget`` (MACs).
        budget: What the widths may cost at most.
        keep_range: Bounds of every width as fractions of C_g; None: from 1 channel to all.
        round_to: Widths are multiples of it where the bounds hold one.

    Raises:
        ValueError: the narrowest widths that the bounds allow still cost more.

    >>> scale_widths([4, 8], [16, 16], sum, 10, keep_range=None)
    [3, 7]
    """

    def widths(factor: float) -> list[int]:
        return [
            clip_width(max(1, round(factor * count)), wide, keep_range, round_to)[0]
            for count, wide in zip(counts, channels, strict=True)
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
    return widths(low)
