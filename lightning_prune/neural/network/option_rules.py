"""Checks of the values of options, and reading them from a mapping."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

Options = TypeVar("Options")


def read_options(kind: type[Options], content: Mapping[str, Any], where: str) -> Options:
    """Build options from a mapping; every key must be known.

    Args:
        kind: A dataclass that checks its own values.
        content: Values by name; what is absent has its default.
        where: Name of the place, for messages.

    Raises:
        ValueError: no mapping, an unknown key, or a value that the options refuse.

    >>> from lightning_prune.neural.network.options import PoolOptions
    >>> read_options(PoolOptions, {"strides": 2}, "pool")
    Traceback (most recent call last):
    ValueError: pool.strides is no known key: did you mean stride?
    """
    if isinstance(content, kind):
        return content
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}={content!r}: pass a mapping of options by name")
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
            raise ValueError(f"{where}.{key} is no known key: {hint}")
    try:
        return kind(**content)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from error


def whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: pass an integer of at least {least}")


def odd(name: str, value: Any) -> None:
    """Refuse what is no odd, positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % 2 == 0:
        raise ValueError(f"{name}={value!r}: pass an odd integer of at least 1")


def number(name: str, value: Any, low: float, high: float = math.inf, above: bool = False) -> None:
    """Refuse what is no number in [low, high), or with ``above`` in (low, high)."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value < high
    if not fits or (above and value == low):
        left = "(" if above else "["
        raise ValueError(f"{name}={value!r}: pass a number in {left}{low:g}, {high:g})")


def flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: pass true or false")


def word(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse what is none of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: allowed are {', '.join(allowed)}")


def whole_tuple(name: str, value: Any, length: int, least: int = 1) -> tuple[int, ...]:
    """Return an integer as a tuple of equal ones, or a sequence of integers as a tuple."""
    entries = tuple(value) if isinstance(value, list | tuple) else (value,) * length
    fits = all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in entries)
    if not fits or len(entries) != length:
        raise ValueError(
            f"{name}={value!r}: pass an integer of at least {least}, or {length} of them"
        )
    return entries
