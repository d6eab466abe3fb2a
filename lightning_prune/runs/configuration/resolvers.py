"""The little arithmetic that recipes need to place their epochs."""

import math


def add(*numbers: int) -> int:
    """Return a sum: `${add:${dense_epochs},1}` is the epoch after the first of pruning.

    >>> add(12, 9)
    21
    """
    return sum(numbers)


def part(whole: int, fraction: float) -> int:
    """Return a fraction of some epochs, rounded down, at least one: `${part:12,0.75}`.

    >>> part(12, 0.75), part(2, 0.75), part(1, 0.75)
    (9, 1, 1)
    """
    return max(1, math.floor(whole * fraction))


def register_resolvers() -> None:
    """Make `${add:...}` and `${part:...}` known to OmegaConf; may be called again."""
    from omegaconf import OmegaConf  # recipes in Python need the arithmetic alone

    OmegaConf.register_new_resolver("add", add, replace=True)
    OmegaConf.register_new_resolver("part", part, replace=True)
