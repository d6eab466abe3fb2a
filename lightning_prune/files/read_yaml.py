"""Reads YAML of strangers, whose few lines can stand for a billion."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_prune.files.file_error import FileError, printable
from lightning_prune.files.read_text import MEGABYTE, read_text

MOST_NODES = 1_000_000
"""Values that a file may stand for once its aliases are written out."""
_DEEPEST = 100
_LONGEST = 4096  # of a number; 1:1:1... is read in base 60, in time that grows with the square

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: str | Path, largest: int = 4 * MEGABYTE) -> Any:
    """Return what a YAML file holds; tags of Python are not followed.

    Args:
        path: The file.
        largest: Bytes that it may have.

    Raises:
        FileNotFoundError: nothing has this name.
        FileError: it is no YAML, stands for more than a million values, is nested too deeply,
            refers to itself, has a key twice, or is what ``read_text`` refuses.
    """
    path = Path(path)
    text = read_text(path, largest)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise FileError(path, str(error)) from error


def parse_yaml(text: str) -> Any:
    r"""Return what a text of YAML holds.

    Raises:
        ValueError: as in ``read_yaml``, without the name of the file.

    >>> parse_yaml("names: {0: cat, 1: dog}")
    {'names': {0: 'cat', 1: 'dog'}}
    >>> parse_yaml("a: &a [x, x]\nb: &b [*a, *a]\nc: *b")["c"]
    [['x', 'x'], ['x', 'x']]
    """
    try:
        _Walk().check(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        what = printable(error.problem or error.context or "not understood", 200)
        raise ValueError(f"no YAML: {line}{what}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {printable(str(error), 200)}") from error
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        # dates such as 2020-13-45, numbers of thousands of digits, !!int "x"
        raise ValueError(printable(str(error) or type(error).__name__, 200)) from error


@dataclass
class _Open:
    """A list or mapping that has begun and not ended."""

    anchor: str | None
    mapping: bool
    size: int = 1  # values, aliases written out
    children: int = 0
    keys: set[str] = field(default_factory=set)


class _Walk:
    """Counts the values of a text from its events, before anything is built."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.stack: list[_Open] = []

    def check(self, text: str) -> None:
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            if count > MOST_NODES:
                raise ValueError(f"more than {MOST_NODES:,} values, which no such file needs")
            self._follow(event)

    def _follow(self, event: Any) -> None:
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(self.stack) >= _DEEPEST:
                raise ValueError(f"line {_line(event)}: nested more than {_DEEPEST} deep")
            self.stack.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            ended = self.stack.pop()
            self._add(ended.size, ended.anchor, event)
        elif isinstance(event, yaml.AliasEvent):
            if any(one.anchor == event.anchor for one in self.stack):
                raise ValueError(f"line {_line(event)}: *{printable(event.anchor)} holds itself")
            self._add(self.sizes.get(event.anchor, 1), None, event)
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _LONGEST and (event.tag or not event.style):
                raise ValueError(f"line {_line(event)}: a value of {len(event.value)} characters")
            self._add(1, event.anchor, event)

    def _add(self, size: int, anchor: str | None, event: Any) -> None:
        if anchor is not None:
            self.sizes[anchor] = size
        if not self.stack:
            return
        parent = self.stack[-1]
        parent.size += size
        if parent.size > MOST_NODES:
            raise ValueError(
                f"line {_line(event)}: its aliases stand for more than {MOST_NODES:,} values"
            )
        if parent.mapping and parent.children % 2 == 0 and isinstance(event, yaml.ScalarEvent):
            if event.value in parent.keys and event.value != "<<":
                raise ValueError(
                    f"line {_line(event)}: the key {printable(event.value)!r} stands twice"
                )
            parent.keys.add(event.value)
        parent.children += 1


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
