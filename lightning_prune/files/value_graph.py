"""Bounds what a walk over the values of a checkpoint can meet."""

from dataclasses import dataclass
from typing import Any

DEEPEST = 200
"""Lists in lists, dicts in dicts; Python itself gives up at a thousand calls."""
_ALWAYS = 50_000_000
_MOST_SHARED = 20
_CONTAINERS = (dict, list, tuple, set, frozenset)


def check_graph(value: Any) -> None:
    """Refuse values that are nested deeply, hold themselves, or unfold to many times their number.

    A list that holds another one twice, which holds another one twice, and so on for sixty levels
    takes a kilobyte in a file; whatever visits it item by item does not come to an end.

    Args:
        value: Dicts, lists, tuples and sets of whatever.

    Raises:
        ValueError: it is so.
    """
    left: dict[int, tuple[int, int]] = {}  # id -> values in it, levels in it
    stack: list[_Visit] = []
    on_the_way: set[int] = set()
    nodes = 0
    waiting: Any = value
    while True:
        if id(waiting) in on_the_way:
            raise ValueError("a value that holds itself")
        stack.append(_Visit(waiting, _children(waiting)))
        on_the_way.add(id(waiting))
        waiting = None
        while waiting is None and stack:
            visit = stack[-1]
            if visit.deepest + len(stack) > DEEPEST:
                raise ValueError(f"values nested more than {DEEPEST} deep")
            if visit.size > _ALWAYS + _MOST_SHARED * nodes:
                raise ValueError("values that are shared again and again")
            if not visit.children:
                stack.pop()
                on_the_way.remove(id(visit.container))
                left[id(visit.container)] = visit.size, visit.deepest + 1
                if stack:
                    stack[-1].add(*left[id(visit.container)])
                continue
            child = visit.children.pop()
            nodes += 1
            if not isinstance(child, _CONTAINERS):
                visit.size += 1
            elif id(child) in left:
                visit.add(*left[id(child)])
            else:
                waiting = child
        if waiting is None:
            return


@dataclass
class _Visit:
    """A container on the way from the root, and what of it was not looked at."""

    container: Any
    children: list[Any]
    size: int = 1
    deepest: int = 0

    def add(self, size: int, levels: int) -> None:
        self.size += size
        self.deepest = max(self.deepest, levels)


def _children(container: Any) -> list[Any]:
    if isinstance(container, dict):
        attributes = vars(container).values() if hasattr(container, "__dict__") else ()
        return [*container, *container.values(), *attributes]
    return list(container) if isinstance(container, _CONTAINERS) else []
