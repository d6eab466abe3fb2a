"""Turn what a checkpoint is to hold into tensors and plain values, which can be read back."""

import dataclasses
import datetime
import decimal
import enum
import fractions
import re
import sys
import types
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SAFE = (bool, int, float, complex, str, bytes, bytearray, type(None))
_TORCH = (torch.dtype, torch.device, torch.Size, torch.layout)
_TEXT = (PurePath, uuid.UUID, decimal.Decimal, fractions.Fraction)
_DEEPEST, _LONGEST = 100, 100_000
# Lightning stores the class of the hyper-parameters, and understands its name as well.
_TYPE_KEYS = ("hparams_type", "datamodule_hparams_type")


@dataclass
class PlainContent:
    """Content of a checkpoint that ``torch.load(weights_only=True)`` reads.

    Attributes:
        content: What is to be written. Whatever is plain already is the same object.
        changed: Place of each value that is stored as another kind ("hyper_parameters.path"), and
            what became of it.
        quiet: The same, where nobody need know: numbers of NumPy, paths, subclasses of ``str``.
        refused: Place of each value that cannot be stored plainly and is left out, and its kind.
    """

    content: Any = None
    changed: dict[str, str] = field(default_factory=dict)
    quiet: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def explain(self) -> str:
        """Return a sentence on what is refused and what to do."""
        named = [f"{place} ({kind})" for place, kind in self.refused.items()]
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        prefixes = ("hyper_parameters.", "datamodule_hyper_parameters.")
        ignored = sorted(
            {
                re.split(r"[.\[]", place.removeprefix(prefix))[0]
                for place in self.refused
                for prefix in prefixes
                if place.startswith(prefix)
            }
        )
        way = f" (self.save_hyperparameters(ignore={ignored}) leaves them out)" if ignored else ""
        return (
            f"{', '.join(named[:5])}{more} could not be read back, since files hold tensors and "
            f"plain values only: store numbers, strings, lists, dicts or tensors instead{way}"
        )


def plain_content(content: Any, place: str = "") -> PlainContent:
    """Convert nested values to tensors and plain values.

    Numbers of NumPy become Python's, arrays become tensors, OmegaConf's nodes, dataclasses and
    namespaces become dicts, members of enums become their values, paths, dates, decimals and UUIDs
    become strings, time spans become seconds, named tuples become tuples. Functions, classes,
    modules and all else is refused.

    Args:
        content: Any nest of values; it is not changed.
        place: Name of the whole, for the names of its parts.

    >>> plain = plain_content({"lr": np.float64(0.1), "path": PurePath("a"), "loss": print})
    >>> plain.content, plain.refused
    ({'lr': 0.1, 'path': 'a'}, {'loss': 'builtin_function_or_method'})
    """
    result = PlainContent()
    found = _Converter(result).convert(content, place, 0)
    result.content = None if found is _REFUSED else found
    return result


_REFUSED = object()


class _Converter:
    def __init__(self, result: PlainContent) -> None:
        self.result = result
        # By identity, so that what is shared stays shared. The originals are kept alive.
        self.known: dict[int, tuple[Any, Any]] = {}
        self.open: set[int] = set()

    def convert(self, value: Any, place: str, depth: int) -> Any:
        kind = type(value)
        if kind in _SAFE or kind in _TORCH or isinstance(value, Tensor):
            return self._tensor(value) if isinstance(value, Tensor) else value
        if id(value) in self.known:
            return self.known[id(value)][1]
        if depth > _DEEPEST or id(value) in self.open:
            return self._refuse(place, f"{kind.__name__} that contains itself or nests too deeply")
        self.open.add(id(value))
        try:
            made = self._nest(value, place, depth)
        finally:
            self.open.discard(id(value))
        self.known[id(value)] = (value, made)
        return made

    def _nest(self, value: Any, place: str, depth: int) -> Any:
        kind = type(value)
        if kind in (dict, OrderedDict, Counter):
            return self._mapping(value, place, depth)
        if kind in (list, tuple, set):
            return self._sequence(value, place, depth)
        if place in _TYPE_KEYS and isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if kind in torch.serialization.get_safe_globals():
            return value
        try:
            silent, simpler = _simpler(value)
        except Exception as error:  # of a foreign class: a reference that leads nowhere
            return self._refuse(place, f"{kind.__name__}: {error}".splitlines()[0])
        if simpler is _REFUSED:
            return self._refuse(place, kind.__name__)
        before = len(self.result.refused)
        made = self.convert(simpler, place, depth + 1)
        if len(self.result.refused) == before:
            places = self.result.quiet if silent else self.result.changed
            places[place] = f"{kind.__name__} -> {type(made).__name__}"
        return made

    def _mapping(self, value: dict[Any, Any], place: str, depth: int) -> Any:
        pairs = []
        for key, entry in value.items():
            name = f"{place}.{key}" if place else str(key)
            new_key = self.convert(key, name, depth + 1)
            new = self.convert(entry, name, depth + 1)
            if new_key is not _REFUSED and new is not _REFUSED:
                pairs.append((key, entry, new_key, new))
        same = all(key is k and entry is e for key, entry, k, e in pairs)
        if same and len(pairs) == len(value):
            return value
        made = type(value)()
        made.update({key: new for _, _, key, new in pairs})
        return made

    def _sequence(self, value: Any, place: str, depth: int) -> Any:
        made = [self.convert(one, f"{place}[{n}]", depth + 1) for n, one in enumerate(value)]
        kept = [one for one in made if one is not _REFUSED]
        same = len(kept) == len(made) and all(a is b for a, b in zip(value, made, strict=True))
        return value if same else type(value)(kept)

    def _refuse(self, place: str, kind: str) -> Any:
        self.result.refused[place or "the content"] = kind
        return _REFUSED

    @staticmethod
    def _tensor(value: Tensor) -> Tensor:
        foreign = not type(value).__module__.startswith("torch.") and type(value) is not Tensor
        return value.detach().as_subclass(Tensor) if foreign else value


def _simpler(value: Any) -> tuple[bool, Any]:
    """Return whether nobody need know, and what a value is in simpler terms, or ``_REFUSED``."""
    if type(value).__module__.partition(".")[0] == "omegaconf":  # not imported on this floor
        return False, sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=True)
    for kinds, silent, change in _CHANGES:
        if isinstance(value, kinds):
            return silent, change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return False, {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if type(value).__module__ == "argparse" and type(value).__name__ == "Namespace":
        return False, dict(vars(value))
    return False, _REFUSED


def _array(value: "np.ndarray[Any, Any]") -> Any:
    if value.dtype.kind not in "biufc":
        return value.tolist() if value.dtype.kind in "USMmO" else _REFUSED
    if value.dtype.itemsize > 8 and value.dtype.kind == "f":  # long doubles
        value = value.astype(np.float64)
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _number(value: "np.generic") -> Any:
    plain = value.item()
    return float(value) if isinstance(plain, np.generic) else plain  # a long double


def _list(value: range) -> Any:
    return list(value) if len(value) <= _LONGEST else _REFUSED


# Kinds, whether the stored value is as good as the given one, and how it is made.
_CHANGES: list[tuple[Any, bool, Callable[[Any], Any]]] = [
    (enum.Enum, False, lambda value: value.value),
    (np.generic, True, _number),
    (np.ndarray, False, _array),
    (np.dtype, False, str),
    (_TEXT, True, str),
    ((datetime.date, datetime.time), False, lambda value: value.isoformat()),
    (datetime.timedelta, False, lambda value: value.total_seconds()),
    (str, True, lambda value: str.__str__(value)),
    (int, True, lambda value: int.__int__(value)),
    (float, True, lambda value: float.__float__(value)),
    (range, False, _list),
    (frozenset, False, set),
    (deque, False, list),
    ((list, tuple), False, lambda value: tuple(value) if isinstance(value, tuple) else list(value)),
    ((dict, Mapping), False, dict),
    (types.SimpleNamespace, False, lambda value: dict(vars(value))),
]
