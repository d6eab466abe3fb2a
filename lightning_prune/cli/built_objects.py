"""Which objects a configuration node will build, as far as that is known before it does."""

import collections.abc
import inspect
from typing import Any, get_origin

import hydra
from hydra.errors import InstantiationException


def builds(value: Any, annotation: Any) -> bool:
    """Return whether a value read from YAML will be an object of a class.

    A mapping with `_target_` builds an object: it passes for the class it names and for those
    above it. Paths are given as text.
    """
    if isinstance(value, str):
        # pathlib.Path and os.PathLike
        return "Path" in getattr(annotation, "__name__", "")
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
