"""Which classes the masks of a data set have: names, and colours where masks are coloured."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.errors import DataError
from lightning_prune.files.file_error import FileError, printable
from lightning_prune.files.read_text import MEGABYTE, read_text
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.vision.mask_file import IGNORED, Color

BINARY = ("background", "foreground")
IGNORE = "ignore"
"""Name among the colours of pixels that do not count."""
_WAYS = (
    "pass names=[background, NAME, ...] in the order of their ids (data.names=[...] on the command "
    "line), or write them into classes.txt, one a line, or as `names` into data.yaml"
)


@dataclass(frozen=True)
class MaskClasses:
    """The classes of a data set.

    Attributes:
        names: In the order of their ids, the background among them.
        colors: (red, green, blue) -> class, or IGNORED; empty: masks hold classes.
    """

    names: list[str]
    colors: dict[Color, int]


def read_classes(
    root: Path,
    names: Sequence[str] | None = None,
    colors: Mapping[str, Sequence[int]] | None = None,
    binary: bool = False,
) -> MaskClasses:
    """Find the class names of a data set.

    Args:
        root: Its folder, in which data.yaml or classes.txt may be.
        names: Class names; None: those of the colours, or of the file.
        colors: Name -> [red, green, blue]; ``ignore`` is the colour of pixels that do not count.
        binary: Masks know only background and object.

    Raises:
        DataError: nothing names the classes, or what does contradicts itself.
    """
    if binary and colors:
        raise DataError("binary=true and colors: masks are one or the other, leave one out")
    of_colors = [name for name in colors or {} if name != IGNORE]
    found = list(names) if names else of_colors or (_from_files(root) or (BINARY if binary else []))
    found = [str(name) for name in found]
    if not found:
        raise DataError(f"{root}: nothing says which classes its masks have: {_WAYS}")
    if len(found) < 2:
        raise DataError(
            f"{root}: {found[0]!r} is the only class: name the background too, which is a class "
            "like any other"
        )
    if len(set(found)) < len(found):
        double = next(name for name in found if found.count(name) > 1)
        raise DataError(f"{root}: the class {printable(double)!r} is named twice")
    if binary and len(found) != 2:
        raise DataError(
            f"{root}: binary=true reads two classes, and {len(found)} are named: leave binary out, "
            "or name two"
        )
    return MaskClasses(found, _colors(root, found, colors or {}))


def _colors(
    root: Path, names: Sequence[str], colors: Mapping[str, Sequence[int]]
) -> dict[Color, int]:
    result: dict[Color, int] = {}
    for name, value in colors.items():
        color = tuple(value) if isinstance(value, list | tuple) else ()
        if len(color) != 3 or not all(_is_byte(part) for part in color):
            raise DataError(
                f"colors: {printable(str(name))} is {printable(str(value))}: give [red, green, "
                "blue], each from 0 to 255"
            )
        if name not in names and name != IGNORE:
            raise DataError(
                f"colors: {printable(str(name))!r} is none of the classes of {root}, "
                f"{printable(', '.join(names), 300)}"
            )
        if color in result:
            raise DataError(f"colors: {list(color)} is given twice")
        result[color] = IGNORED if name == IGNORE and name not in names else names.index(name)
    absent = [name for name in names if name not in colors] if colors else []
    if absent:
        raise DataError(f"colors: {printable(', '.join(absent), 300)} has no colour: give all")
    return result


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _from_files(root: Path) -> list[str]:
    try:
        for name in ("data.yaml", "data.yml"):
            if os.path.isfile(root / name):
                return _of_yaml(root / name)
        if os.path.isfile(root / "classes.txt"):
            lines = read_text(root / "classes.txt", 4 * MEGABYTE).splitlines()
            return [line.strip() for line in lines if line.strip()]
    except FileError as error:
        raise DataError(str(error)) from error
    return []


def _of_yaml(file: Path) -> list[str]:
    content = read_yaml(file)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))) or any(isinstance(key, bool) for key in names):
            raise DataError(f"{file}: number the keys of `names` 0, 1, 2...")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file} has no list `names`: {_WAYS}")
    for index, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            why = " (so YAML reads yes, no, on and off)" if isinstance(name, bool) else ""
            raise DataError(f"{file}: names[{index}] is no text{why}: put it in quotes")
    return [str(name) for name in names]
