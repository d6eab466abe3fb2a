"""What is wrong with a configuration, key by key."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_prune.validation import Problem

_PART = re.compile(r"[^.\[\]]+")
_REFERENCE = re.compile(r"^\$\{([\w.]+)\}$")


def first_causes(problems: Sequence[Problem], raw: Any) -> Iterator[Problem]:
    """Leave out what repeats another problem: a reference to its key, or a part of its node."""
    paths = {problem.path for problem in problems}
    for problem in dict.fromkeys(problems):
        path = problem.path
        inside = any(path.startswith((f"{other}.", f"{other}[")) for other in paths)
        origin = _origin(path, raw)
        if not inside and (origin == path or origin not in paths):
            yield problem


def value_at(path: str, raw: Any) -> Any:
    """Return what stands at a path ("a.b[0].c"); None where there is nothing.

    >>> value_at("a.b[1]", {"a": {"b": [1, 2]}})
    2
    """
    for key in _PART.findall(path):
        if isinstance(raw, list):
            raw = raw[int(key)] if key.isdecimal() and int(key) < len(raw) else None
        else:
            raw = raw.get(key) if isinstance(raw, dict) else None
    return raw


def _origin(path: str, raw: Any) -> str:
    """Follow `${...}` on the way to a key: the key whose value it really is."""
    keys = _PART.findall(path)
    for count in range(1, len(keys) + 1):
        found = value_at(".".join(keys[:count]), raw)
        reference = _REFERENCE.match(found) if isinstance(found, str) else None
        if reference:
            return _origin(".".join([reference[1], *keys[count:]]), raw)
    return path
