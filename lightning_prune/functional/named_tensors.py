"""Finds the tensors in whatever a network returns."""

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Set
from typing import Any

from torch import Size, Tensor, device, dtype
from torch.utils._pytree import tree_leaves

Path = tuple[str | int, ...]
# Nothing that a network computes with its weights.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, enum.Enum, Size, dtype, device)


def named_tensors(value: Any) -> dict[Path, Tensor]:
    """Return the tensors in a structure, each with the keys, fields and indices on its way.

    Looked into are mappings and dataclasses of any class, named tuples, lists, tuples, and what is
    registered with ``torch.utils._pytree``; in the order in which these hold their parts.

    >>> import torch
    >>> one, two = torch.tensor(1), torch.tensor(2)
    >>> list(named_tensors({"maps": [one, two], "loss": None, "logits": one}))
    [('maps', 0), ('maps', 1), ('logits',)]
    """
    return {path: leaf for path, leaf in _leaves(value, ()) if isinstance(leaf, Tensor)}


def unknown_types(value: Any) -> list[str]:
    """Return the names of the types that cannot be searched for tensors, each once.

    >>> unknown_types([1, "text", {"a": object()}])
    ['object']
    """
    leaves = (leaf for _, leaf in _leaves(value, ()) if not isinstance(leaf, Tensor))
    kinds = dict.fromkeys(type(leaf) for leaf in leaves if not isinstance(leaf, _PLAIN))
    return [kind.__qualname__ for kind in kinds]


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    parts = _parts(value)
    if parts is None:
        yield path, value
    else:
        for key, part in parts:
            yield from _leaves(part, (*path, key))


def _parts(value: Any) -> list[tuple[str | int, Any]] | None:
    """Return what a container holds, in order; None for everything else."""
    if isinstance(value, (Tensor, type, *_PLAIN)):
        return None
    # Before dataclasses: outputs of transformers are both, and their fields may be None.
    if isinstance(value, Mapping):
        return [(key if isinstance(key, int) else str(key), part) for key, part in value.items()]
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return [(name, getattr(value, name)) for name in fields if hasattr(value, name)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, Set):
        return None
    leaves = tree_leaves(value)
    return None if len(leaves) == 1 and leaves[0] is value else list(enumerate(leaves))


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among the arguments of an operation, those in lists and tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)
