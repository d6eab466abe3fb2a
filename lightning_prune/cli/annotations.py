"""Compare a plain configuration value with a type annotation."""

import collections.abc
import inspect
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import hydra
from hydra.errors import InstantiationException

_PLAIN = (bool, int, float, str)
_LISTS = (
    list,
    tuple,
    set,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value read from YAML can be passed where `annotation` stands.

    An integer passes for a float, but true and false pass for booleans only. A mapping with
    `_target_` builds an object: it passes for the class it names and for those above it.

    Example:
        >>> fits(1, float | None), fits(True, int), fits("n", Literal["n", "s"])
        (True, False, True)
    """
    if annotation is Any or annotation is object or isinstance(annotation, TypeVar):
        return True
    if annotation is None or annotation is type(None):
        return value is None
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, member) for member in get_args(annotation))
    if origin is Literal:
        return any(value == item and type(value) is type(item) for item in get_args(annotation))
    if annotation in _PLAIN:
        return _is_plain(value, annotation)
    if (origin or annotation) in _LISTS:
        return _is_list_of(value, get_args(annotation))
    if (origin or annotation) in _DICTS:
        return isinstance(value, dict)
    return _builds(value, annotation) or (isinstance(value, str) and _takes_text(annotation))


def describe(annotation: Any) -> str:
    """Return an annotation in words a user can act on.

    Example:
        >>> describe(float | None), describe(Literal["n", "s"]), describe(list[int])
        ('a number or null', "'n' or 's'", 'a list of integers')
    """
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        members = sorted(get_args(annotation), key=lambda member: member is type(None))
        return " or ".join(dict.fromkeys(describe(member) for member in members))
    if origin is Literal:
        return " or ".join(repr(item) for item in get_args(annotation))
    if (origin or annotation) in _LISTS:
        items = [item for item in get_args(annotation) if item is not Ellipsis]
        return f"a list of {_plural(items[0])}" if items else "a list"
    if (origin or annotation) in _DICTS:
        return "a mapping"
    words = {
        None: "null",
        type(None): "null",
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "text",
    }
    name = getattr(annotation, "__name__", str(annotation))
    return words.get(annotation, f"an object ({name}, given by _target_)")


def _is_plain(value: Any, annotation: type) -> bool:
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _is_list_of(value: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    if not arguments:
        return True
    if len(arguments) == 1 or arguments[-1] is Ellipsis:
        return all(fits(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


def _builds(value: Any, annotation: Any) -> bool:
    if not (isinstance(value, dict) and "_target_" in value):
        return False
    wanted = get_origin(annotation) or annotation
    if value.get("_partial_"):
        return wanted is collections.abc.Callable
    target = _found(value["_target_"])
    # What a function returns is not known, nor whether a class is one for type checkers only.
    if not (inspect.isclass(target) and inspect.isclass(wanted)):
        return True
    if getattr(wanted, "_is_protocol", False):
        return all(hasattr(target, name) for name in vars(wanted) if not name.startswith("_"))
    return issubclass(target, wanted)


def _found(name: Any) -> Any:
    """Import what a node names; None where that is impossible, which is reported elsewhere."""
    try:
        return hydra.utils.get_object(name) if isinstance(name, str) else None
    except (InstantiationException, ImportError, ValueError):
        return None


def _takes_text(annotation: Any) -> bool:
    # pathlib.Path and os.PathLike are given as text in YAML.
    return "Path" in getattr(annotation, "__name__", "")


def _plural(annotation: Any) -> str:
    words = {int: "integers", float: "numbers", str: "texts", bool: "true or false values"}
    return words.get(annotation, f"items, each {describe(annotation)}")
