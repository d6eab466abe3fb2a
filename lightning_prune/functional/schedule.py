"""Stateless schedules: a value as a function of progress."""

import math
from typing import Literal

Decay = Literal["cosine", "linear", "constant"]


def warmup_decay(
    step: int, warmup: int, total: int, final: float = 0.01, decay: Decay = "cosine"
) -> float:
    r"""Return the factor of a warm-up followed by a decay, as a pure function of the step.

    .. math:: f = (t + 1) / (w + 1) \text{ for } t < w, \quad
        f = e + (1 - e) d\left(\frac{t - w}{T - w}\right) \text{ after}

    with d(p) = (1 + cos(pi p)) / 2, 1 - p, or 1, and f = e from step T on (1 where constant).

    Args:
        step: t, optimizer steps so far.
        warmup: w, steps of the warm-up.
        total: T, steps in all.
        final: e, the factor at the end.
        decay: The shape of d.

    >>> [round(warmup_decay(t, 1, 5, 0.1), 3) for t in range(6)]
    [0.5, 1.0, 0.868, 0.55, 0.232, 0.1]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if decay == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    shape = (1 + math.cos(math.pi * progress)) / 2 if decay == "cosine" else 1 - progress
    return final + (1 - final) * shape
