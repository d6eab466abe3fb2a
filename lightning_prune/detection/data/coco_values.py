"""Read the values of COCO's entries as strangers' programs write them."""

import math
import re
import reprlib
from typing import Any

Key = int | str
_LARGEST = 2**53
_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def as_key(value: Any) -> Key:
    """Read an id: a whole number, also as a text or with a fraction of 0, or any other text.

    Raises:
        ValueError: it is none.

    >>> as_key(7), as_key("07"), as_key(7.0), as_key("a-1")
    (7, 7, 7, 'a-1')
    """
    if type(value) is int and abs(value) < _LARGEST:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST:
        return int(value)
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(float(text)) if re.fullmatch(r"-?\d{1,15}(\.0+)?", text) else text
    raise ValueError(f"{shown(value)} is no id")


def as_number(value: Any) -> float:
    """Read a finite number, also as a text.

    Raises:
        ValueError: it is none.

    >>> as_number(3), as_number("12.5")
    (3.0, 12.5)
    """
    kind = type(value)
    if kind is float and math.isfinite(value):
        return float(value)
    if kind is int and abs(value) < _LARGEST:
        return float(value)
    if kind is str and re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*", value):
        number = float(value)
        if math.isfinite(number):
            return number
    raise ValueError(f"{shown(value)} is no finite number")


def as_size(value: Any) -> int:
    """Read a number of pixels.

    Raises:
        ValueError: it is none.

    >>> as_size("640"), as_size(480.0)
    (640, 480)
    """
    number = as_number(value)
    if not number.is_integer() or number < 1:
        raise ValueError(f"{shown(value)} is no number of pixels")
    return int(number)


def as_flag(value: Any) -> bool:
    """Read 0 or 1, true or false, also as a text; null is false.

    Raises:
        ValueError: it is none of them.

    >>> as_flag("0"), as_flag(True), as_flag(None)
    (False, True, False)
    """
    if value is None or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise ValueError(f"{shown(value)} is neither 0 nor 1")


def as_box(value: Any) -> tuple[float, float, float, float]:
    """Read x, y, width, height.

    Raises:
        ValueError: it is no list of four numbers.

    >>> as_box([8, "12.5", 20, 10])
    (8.0, 12.5, 20.0, 10.0)
    """
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"bbox {shown(value)} is no list of four numbers")
    try:
        x, y, width, height = map(as_number, value)
    except ValueError as error:
        raise ValueError(f"bbox {shown(value)}: {error}") from error
    return x, y, width, height


def hull(segmentation: Any) -> tuple[float, float, float, float]:
    """Compute x, y, width, height of polygons, each a list x1, y1, x2, y2, ...

    Raises:
        ValueError: they are none.

    >>> hull([[1, 2, 5, 2, 5, 8], [0, 3, 1, 3, 1, 4]])
    (0.0, 2.0, 5.0, 6.0)
    """
    if isinstance(segmentation, dict):
        raise ValueError("no bbox, and the segmentation is run lengths (RLE)")
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no bbox")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"no bbox, and {shown(polygon)} is no polygon")
        xs += map(as_number, polygon[::2])
        ys += map(as_number, polygon[1::2])
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def shown(value: Any) -> str:
    """Write a foreign value in a few words of JSON, however large it is.

    >>> shown(None), shown("a" * 99)
    ('null', "'aaaaaaaaaaaa...aaaaaaaaaaaaa'")
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
