"""Aims at a target again and again, each time corrected by what was measured."""

import math
from collections.abc import Callable
from typing import TypeVar

FoundT = TypeVar("FoundT")

# As a fraction of the target: near enough, and how often is measured.
_NEAR = 0.01
_ROUNDS = 3


def nearest_measured(
    find: Callable[[float], FoundT | None],
    measure: Callable[[FoundT], float],
    target: float,
) -> tuple[FoundT, float]:
    """Return what comes nearest to a target by measurement, and what was measured of it.

    From below, with one percent of tolerance; where all that was tried is above, the least.

    Args:
        find: Returns what a model believes to be at a target, a fraction; None: out of its reach.
        measure: Measures at which fraction it is in truth.
        target: What is wanted, in (0, 1).

    Raises:
        ValueError: the target itself is out of reach.

    >>> nearest_measured(lambda aim: aim, lambda found: found * 1.25, 0.5)  # all takes longer
    (0.4, 0.5)
    """
    tried: list[tuple[FoundT, float]] = []
    aim = target
    for _ in range(_ROUNDS):
        found = find(aim)
        if found is None:
            break
        real = measure(found)
        tried.append((found, real))
        aim *= target / real
        if abs(math.log(real / target)) < _NEAR or aim >= 1:
            break
    if not tried:
        raise ValueError(f"target={target}: out of reach")
    below = [one for one in tried if one[1] <= target * (1 + _NEAR)]
    return max(below, key=lambda one: one[1]) if below else min(tried, key=lambda one: one[1])
