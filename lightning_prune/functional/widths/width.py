"""How many channels a layer keeps: the knee within bounds, at a multiple hardware likes."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Bound = Literal["knee", "lower", "upper", "rounding", "fallback", "given"]


class Width(NamedTuple):
    """A number of channels to keep and what decided it.

    Attributes:
        width: Channels to keep, 1..C.
        bound: "knee" (the knee lay inside the bounds), "lower" or "upper" (it was clipped there),
            "fallback" (there was no knee: the upper bound), "rounding" (no multiple of
            ``round_to`` lies inside the bounds, so the width lies outside) or "given" (planned
            elsewhere).
    """

    width: int
    bound: Bound


def is_selectable(channels: int) -> bool:
    """Return whether a layer has enough channels for a choice by clusters: more than 3.

    >>> is_selectable(3), is_selectable(4)
    (False, True)
    """
    return channels > 3


def clip_width(
    k: int | None,
    channels: int,
    keep_range: tuple[float, float] | None = (0.25, 0.5),
    round_to: int = 1,
) -> Width:
    """Bound the number of channels to keep, and round it to a multiple.

    The bounds are the fractions of ``keep_range`` times C, rounded down, at least 1. The nearest
    multiple of ``round_to`` inside the bounds is taken, the larger of two equally near ones. Only
    where none lies inside, the nearest one outside is, at most C.

    Args:
        k: The knee or any wish of at least 1, or None where there is none: the upper bound
            (half of the channels where ``keep_range`` is None).
        channels: C.
        keep_range: Smallest and largest fraction of the channels kept, 0 < smallest <= largest
            <= 1; None leaves the knee as it is but for the rounding.
        round_to: The width becomes a multiple of this.

    Raises:
        ValueError: If an argument lies outside what is allowed.

    >>> clip_width(60, channels=100), clip_width(13, channels=64, round_to=8)
    (Width(width=50, bound='upper'), Width(width=16, bound='lower'))
    >>> clip_width(None, channels=20, round_to=16)
    Width(width=16, bound='rounding')
    """
    _check(k, channels, keep_range, round_to)
    lower, upper = _bounds(channels, keep_range)
    bound: Bound = "knee"
    if k is None:
        k, bound = (channels // 2 or 1) if keep_range is None else upper, "fallback"
    elif k < lower:
        k, bound = lower, "lower"
    elif k > upper:
        k, bound = upper, "upper"
    first, last = math.ceil(lower / round_to) * round_to, upper // round_to * round_to
    if first <= last:
        nearest = (2 * k + round_to) // (2 * round_to) * round_to
        return Width(min(max(nearest, first), last), bound)
    outside = last if last >= 1 and k - last < first - k else first
    return Width(min(outside, channels), "rounding")


def allowed_widths(
    channels: int, keep_range: tuple[float, float] | None, round_to: int
) -> list[int]:
    """Return all widths that ``clip_width`` can give to a layer, ascending.

    >>> allowed_widths(64, (0.25, 0.75), 16)
    [16, 32, 48]
    """
    wishes = range(1, channels + 1)
    return sorted({clip_width(wish, channels, keep_range, round_to).width for wish in wishes})


def least_width(channels: int, fraction: float) -> int:
    """Return the smallest number of channels, at least 1, that is no less than a fraction of C.

    >>> least_width(30, 0.1), least_width(31, 0.1), least_width(30, 0.0)
    (3, 4, 1)
    """
    # 0.1 * 30 is 3.0000000000000004.
    return max(1, math.ceil(fraction * channels - 1e-9))


def narrower_widths(
    channels: int, least: int = 1, round_to: int = 1, start: int | None = None
) -> tuple[int, ...]:
    """Return the widths to which channels of a layer may be removed, from its own down.

    All but the first are multiples of ``round_to``, at least one block, and no less than ``least``.

    Args:
        channels: C, the width of the dense layer.
        least: Smallest width, at least 1.
        round_to: Widths are multiples of it.
        start: Width to start from, where some channels are gone already; None: C.

    >>> narrower_widths(20, 6, round_to=4), narrower_widths(20, 6, round_to=8)
    ((20, 16, 12, 8), (20, 16, 8))
    >>> narrower_widths(6, round_to=8)
    (6,)
    """
    start = channels if start is None else start
    least = math.ceil(least / round_to) * round_to
    below = range((start - 1) // round_to * round_to, least - 1, -round_to)
    return (start, *below)


def near_widths(
    allowed: Sequence[int], reference: float, max_shift: float, width: int
) -> list[int]:
    """Return the allowed widths that are at most ``max_shift`` from a reference, and ``width``.

    >>> near_widths([8, 16, 24, 32], reference=20, max_shift=4, width=32)
    [16, 24, 32]
    """
    return [w for w in allowed if abs(w - reference) <= max_shift or w == width]


def _check(
    k: int | None, channels: int, keep_range: tuple[float, float] | None, round_to: int
) -> None:
    if channels < 1 or round_to < 1:
        raise ValueError(f"channels={channels}, round_to={round_to}: both must be at least 1")
    if k is not None and k < 1:
        raise ValueError(f"k={k}: pass a number of clusters, at least 1, or None for no knee")
    if keep_range is not None and not 0 < keep_range[0] <= keep_range[1] <= 1:
        raise ValueError(
            f"keep_range={keep_range}: pass the smallest and the largest fraction of channels to "
            "keep, 0 < smallest <= largest <= 1, or None for no bounds"
        )


def _bounds(channels: int, keep_range: tuple[float, float] | None) -> tuple[int, int]:
    if keep_range is None:
        return 1, channels
    # 0.29 * 100 is 28.999999999999996: the fraction meant 29.
    lower, upper = (max(1, math.floor(part * channels + 1e-9)) for part in keep_range)
    return lower, upper
