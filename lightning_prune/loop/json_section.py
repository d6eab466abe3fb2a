"""Reads an object of a JSON file into a dataclass: every key known, of its type, in its range."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

Section = TypeVar("Section")
Rule = Callable[[Any, str], Any]
"""``(value, where) -> the value to keep``; raises ValueError with ``where`` in its message."""


def read_section(kind: type[Section], content: Any, where: str) -> Section:
    """Read an object into a dataclass whose fields are annotated with a ``Rule`` each.

    Args:
        kind: The dataclass.
        content: What the file holds at this place.
        where: Name of the place, for messages.

    Raises:
        ValueError: no object, an unknown or missing key, a value that its rule or the dataclass
            refuses.

    >>> from typing import Annotated
    >>> @dataclasses.dataclass(frozen=True)
    ... class Window:
    ...     first: Annotated[int, whole(0)]
    ...     step: Annotated[int, whole(1)] = 1
    >>> read_section(Window, {"first": 3}, "window")
    Window(first=3, step=1)
    >>> read_section(Window, {"first": 3, "steps": 2}, "window")
    Traceback (most recent call last):
    ValueError: window.steps is no known key: did you mean step?
    """
    values = read_values(kind, content, where)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ValueError(f"{where}.{field.name} is missing: it has no default")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def read_values(kind: type[Any], content: Any, where: str) -> dict[str, Any]:
    """Check and convert the keys that are there, whichever are missing.

    Raises:
        ValueError: no object, an unknown key, or a value that its rule refuses.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} is {_shown(content)}: pass an object with keys")
    fields = get_type_hints(kind, include_extras=True)
    for name in content:
        if name not in fields:
            near = get_close_matches(name, fields, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(fields)}"
            raise ValueError(f"{where}.{name} is no known key: {hint}")
    return {n: fields[n].__metadata__[0](v, f"{where}.{n}") for n, v in content.items()}


def boolean(value: Any, where: str) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{where} is {_shown(value)}: pass true or false")
    return value


def text(value: Any, where: str) -> str:
    """Take a string."""
    if not isinstance(value, str):
        raise ValueError(f"{where} is {_shown(value)}: pass a string")
    return value


def texts(value: Any, where: str) -> list[str]:
    """Take a list of strings."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"{where} is {_shown(value)}: pass a list of strings")
    return value


def whole(least: int) -> Rule:
    """Take an integer from ``least`` on."""

    def rule(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{where} is {_shown(value)}: pass an integer of at least {least}")
        return value

    return rule


def number(low: float, high: float = math.inf, open_ends: str = "") -> Rule:
    """Take a number between two ends; ``open_ends`` of "(" and ")" says which do not belong."""
    left, right = "(" if "(" in open_ends else "[", ")" if ")" in open_ends else "]"
    allowed = f"in {left}{low:g}, {high:g}{right}"
    if high == math.inf:
        allowed = f"above {low:g}" if left == "(" else f"of at least {low:g}"

    def rule(value: Any, where: str) -> float:
        fits = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (low < value if left == "(" else low <= value)
            and (value < high if right == ")" else value <= high)
        )
        if not fits:
            raise ValueError(f"{where} is {_shown(value)}: pass a number {allowed}")
        return float(value)

    return rule


def one_of(allowed: Sequence[str]) -> Rule:
    """Take one of some words."""

    def rule(value: Any, where: str) -> str:
        if value not in allowed or not isinstance(value, str):
            raise ValueError(f"{where} is {_shown(value)}: allowed are {', '.join(allowed)}")
        return value

    return rule


def optional(inner: Rule) -> Rule:
    """Take null too."""

    def rule(value: Any, where: str) -> Any:
        return None if value is None else inner(value, where)

    return rule


def section(kind: type[Section]) -> Rule:
    """Take an object, read into a dataclass."""

    def rule(value: Any, where: str) -> Section:
        return read_section(kind, value, where)

    return rule


def _shown(value: Any) -> str:
    names = {True: "true", False: "false", None: "null"}
    return names[value] if value is None or isinstance(value, bool) else repr(value)
