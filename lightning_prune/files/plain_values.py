"""Makes the plain values of a pickle from arguments of which nothing is taken for granted."""

import re
from collections import Counter, OrderedDict
from typing import Any

import torch

from lightning_prune.files.file_error import printable
from lightning_prune.files.record import Record

LARGEST = 2**63
_DEVICE = re.compile(r"[a-z]{2,20}(?::\d{1,4})?")
_MOST_COLLISIONS = 100  # of a million keys, three have one hash by chance
_MOST_PARTS = 64
_MOST_BITS = 2048
_MOST_DIMENSIONS = 64


def is_size(value: Any) -> bool:
    """Return whether a value is an integer from 0 to 2^63 - 1, and no truth value."""
    return type(value) is int and 0 <= value < LARGEST


def is_sequence(value: Any) -> bool:
    """Return whether a value has the kind and length of sizes or strides."""
    return type(value) in (tuple, list, torch.Size) and len(value) <= _MOST_DIMENSIONS


class Keys:
    """Checks what a dict is indexed by and a set holds, before it is hashed.

    The hash of a nested tuple walks it, and crashes the process where it is nested deeply; hashes
    of tuples, complex and large whole numbers can be chosen to collide, and then time grows with
    the square of their number.
    """

    def __init__(self) -> None:
        self._hashes: Counter[int] = Counter()

    def check(self, key: Any) -> None:
        """Refuse everything but plain values, small tuples of them, and records.

        Raises:
            ValueError: it is refused.
        """
        if _has_own_hash(key) or isinstance(key, Record):
            return
        if not _is_small_key(key):
            raise ValueError(f"a {type(key).__name__} as a key, or one nested or too large")
        place = hash(key) & 0xFFFFFFFF
        self._hashes[place] += 1
        if self._hashes[place] > _MOST_COLLISIONS:
            raise ValueError("keys that were chosen to have the same hash")

    def make_dict(self, items: Any, into: dict[Any, Any]) -> Any:
        """Fill a dict with (key, value) pairs or those of another dict."""
        pairs = items.items() if isinstance(items, dict) else items
        if not isinstance(items, dict | list | tuple):
            raise ValueError(f"a dict made of a {type(items).__name__}")
        for pair in pairs:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError("a dict made of something else than pairs")
            self.check(pair[0])
            into[pair[0]] = pair[1]
        return into

    def make_ordered_dict(self, items: Any = ()) -> OrderedDict[Any, Any]:
        """Return ``collections.OrderedDict(items)``."""
        found: OrderedDict[Any, Any] = self.make_dict(items, OrderedDict())
        return found

    def make_counter(self, items: Any = ()) -> Counter[Any]:
        """Return ``collections.Counter(items)`` of a dict."""
        found: Counter[Any] = self.make_dict(items, Counter())
        return found

    def make_set(self, items: Any = ()) -> set[Any]:
        """Return ``set(items)`` of a list."""
        if not isinstance(items, list | tuple):
            raise ValueError(f"a set made of a {type(items).__name__}")
        for item in items:
            self.check(item)
        return set(items)

    def make_frozenset(self, items: Any = ()) -> frozenset[Any]:
        """Return ``frozenset(items)`` of a list."""
        return frozenset(self.make_set(items))


def _has_own_hash(value: Any) -> bool:
    """Return whether few other values have the hash of this one."""
    kind = type(value)
    if kind is int:
        return bool(-LARGEST <= value < LARGEST)
    return value is None or kind in (str, bool, float, bytes, torch.dtype, torch.device)


def _is_small_key(key: Any) -> bool:
    left, waiting = _MOST_PARTS, [key]
    while waiting:
        part = waiting.pop()
        left -= 1
        if left < 0 or (type(part) is int and part.bit_length() > _MOST_BITS):
            return False
        if type(part) in (tuple, torch.Size):
            if len(part) > left:
                return False
            waiting += part
        elif type(part) not in (int, complex) and not _has_own_hash(part):
            return False
    return True


def make_size(sizes: Any = ()) -> torch.Size:
    """Return ``torch.Size(sizes)``."""
    if not is_sequence(sizes) or not all(map(is_size, sizes)):
        raise ValueError("a size that is no short tuple of numbers from 0 to 2^63")
    return torch.Size(sizes)


def make_complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    """Return ``complex(real, imaginary)``."""
    if any(type(part) is not float and not _is_small(part) for part in (real, imaginary)):
        raise ValueError("a complex number of something else than numbers")
    return complex(real, imaginary)


def _is_small(value: Any) -> bool:
    return type(value) is int and bool(-LARGEST <= value < LARGEST)


def make_bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    """Return bytes that protocol 2 keeps as text."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an encoding that pickle never uses")
    return text.encode("latin-1")


def make_bytearray(content: Any = b"", encoding: Any = "latin-1") -> bytearray:
    """Return ``bytearray(content)``; of a number it would allocate as much."""
    if isinstance(content, int):
        raise ValueError("a buffer of so many bytes without content")
    if type(content) in (bytes, bytearray):
        return bytearray(content)
    return bytearray(make_bytes(content, encoding))


def make_device(name: Any, index: Any = None) -> torch.device:
    """Return ``torch.device(name, index)``."""
    if type(name) is not str or not _DEVICE.fullmatch(name):
        raise ValueError("a device without a name")
    if index is not None and (not is_size(index) or index > 9999):
        raise ValueError("a device without a number")
    return torch.device(name) if index is None else torch.device(name, index)


def make_layout(name: Any) -> torch.layout:
    """Return ``torch.serialization._get_layout(name)``."""
    found = getattr(torch, name.removeprefix("torch."), None) if type(name) is str else None
    if not isinstance(found, torch.layout):
        raise ValueError(f"a layout named {printable(str(name)) if type(name) is str else '?'}")
    return found
