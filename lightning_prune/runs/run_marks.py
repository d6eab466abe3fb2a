"""Which run a callback belongs to: callbacks may be used in one fit after another."""

from typing import Any

_MARK = "_lightning_prune_run"


def same(marks: tuple[object, object] | None, trainer: Any, pl_module: Any) -> tuple[bool, bool]:
    """Return whether Trainer and module are those whose ``marks_of`` these are."""
    known = marks or (None, None)
    now = marks_of(trainer, pl_module)
    return known[0] is now[0], known[1] is now[1]


def marks_of(trainer: Any, pl_module: Any) -> tuple[object, object]:
    """Return what distinguishes this Trainer and this module from all others.

    Unlike ids they are never used again, copies have others, and they can be pickled.
    """
    return _mark(trainer), _mark(pl_module)


def _mark(owner: Any) -> object:
    mark: object = vars(owner).setdefault(_MARK, _Mark())
    return mark


class _Mark:
    """Different from every other one."""
