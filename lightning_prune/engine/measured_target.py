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

    Args:
        find: Returns what a model believes to be at a target, a fraction; None: out of its reach.
        measure: Measures at which fraction it is in truth.
        target: What is wanted, in (0, 1).

    Raises:
        ValueError: the target itself is out of reach.

    >>> nearest_measured(lambda aim: aim, lambda found: found * 1.25, 0.5)  # all takes longer
    (0.4, 0.5)
    """
    tried: list[tuple[float, FoundT, float]] = []
    aim = target
    for _ in range(_ROUNDS):
        found = find(aim)
        if found is None:
            break
        real = measure(found)
        tried.append((abs(math.log(real / target)), found, real))
        if tried[-1][0] < _NEAR:
            break
        aim = min(aim * target / real, 1.0)
    if not tried:
        raise ValueError(f"target={target}: out of reach")
    _, best, real = min(tried, key=lambda one: one[0])
    return best, real
