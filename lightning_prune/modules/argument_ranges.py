"""Checks of a module's arguments, each with one sentence that says what is allowed."""

import math
from collections.abc import Collection, Mapping
from typing import Any

Ranges = Mapping[str, tuple[float, float, bool, str]]
"""Name -> lowest value, highest value, whether the highest is allowed, what it is."""

SCHEDULE_RANGES: Ranges = {
    "lr": (1e-12, math.inf, False, "a positive learning rate"),
    "weight_decay": (0, math.inf, False, "a decay of at least 0"),
    "warmup_epochs": (0, math.inf, False, "a number of epochs of at least 0"),
    "schedule_epochs": (0, math.inf, False, "an integer of at least 0"),
    "final_lr": (0, 1, True, "a fraction of lr in [0, 1]"),
}
"""Those of the optimizer and the learning-rate schedule."""


def check_choices(hparams: Mapping[str, Any], choices: Mapping[str, Collection[str]]) -> None:
    """Check arguments that are one of some words.

    Raises:
        ValueError: one is not.
    """
    for name, allowed in choices.items():
        if hparams[name] not in allowed:
            raise ValueError(f"{name}={hparams[name]!r}: pass one of {', '.join(allowed)}")


def check_ranges(
    hparams: Mapping[str, Any], ranges: Ranges, integers: Collection[str] = ()
) -> None:
    """Check arguments that are numbers.

    Args:
        hparams: Arguments by name.
        ranges: What is allowed.
        integers: Names of those that have no fraction.

    Raises:
        ValueError: one is no number or out of range.

    >>> check_ranges({"lr": -1.0}, {"lr": (0, 1, True, "a rate in [0, 1]")})
    Traceback (most recent call last):
    ValueError: lr=-1.0: pass a rate in [0, 1]
    """
    for name, (low, high, closed, meaning) in ranges.items():
        value = hparams[name]
        kind = int if name in integers else int | float
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits or not (low <= value < high or (closed and value == high)):
            raise ValueError(f"{name}={value!r}: pass {meaning}")
