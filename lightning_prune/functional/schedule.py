"""Learning-rate schedules as stateless functions of the optimizer step."""

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "one_cycle"]
"""Schedules of a whole run."""

Decay = Literal["cosine", "linear", "constant"]
"""What may follow a warm-up."""

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25


def learning_rate_factor(
    step: int, total: int, warmup: int, final: float, schedule: Schedule | Decay = "linear"
) -> float:
    r"""Return the factor on the learning rate at an optimizer step.

    .. math:: f = (t + 1) / (w + 1) \text{ for } t < w, \quad
        f = e + (1 - e) d\left(\frac{t - w}{T - w}\right) \text{ after}

    with d(p) = 1 - p (``linear``), (1 + cos(pi p)) / 2 (``cosine``), and f = e from step T on;
    ``constant`` stays at 1 after the warm-up. ``one_cycle`` rises by a cosine from 1/25 over the
    first 30 % of the steps, whatever the warm-up, and falls by a cosine to e.

    Args:
        step: t, steps done, counted from 0; steps past the end keep the final factor.
        total: T, steps that the schedule spans.
        warmup: w, steps of the warm-up, less than ``total``.
        final: e, the factor at the end, in [0, 1].
        schedule: Shape of the fall.

    Source: one_cycle: L. N. Smith, N. Topin, 2017, Super-Convergence, arXiv 1708.07120.

    >>> [round(learning_rate_factor(s, 12, 2, 0.0), 2) for s in (0, 1, 2, 7, 12)]
    [0.33, 0.67, 1.0, 0.5, 0.0]
    >>> [round(learning_rate_factor(s, 5, 1, 0.1, "cosine"), 3) for s in range(6)]
    [0.5, 1.0, 0.868, 0.55, 0.232, 0.1]
    """
    if schedule == "one_cycle":
        rise = ONE_CYCLE_RISE * total
        if step < rise:
            return _cosine(step / rise, ONE_CYCLE_START, 1.0)
        return _cosine((step - rise) / (total - rise), 1.0, final)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    if schedule == "cosine":
        return _cosine(progress, 1.0, final)
    return 1.0 - (1.0 - final) * progress


def _cosine(progress: float, start: float, end: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
