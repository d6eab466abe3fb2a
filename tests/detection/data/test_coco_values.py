from typing import Any

import pytest
from pycocotools import mask

from lightning_prune.detection.data.coco_values import (
    as_box,
    as_flag,
    as_key,
    as_number,
    as_size,
    hull,
    shown,
)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (7, 7), (7.0, 7), ("7", 7), (" 007 ", 7), ("7.0", 7), (-1, -1),
        ("a-1", "a-1"), ("7.5", "7.5"), ("9" * 30, "9" * 30),
    ],
)  # fmt: skip
def test_ids(value: Any, key: Any) -> None:
    found = as_key(value)
    assert (found, type(found)) == (key, type(key))


@pytest.mark.parametrize("value", [None, True, [1], {}, 7.5, float("nan"), 10**400, "", "  "])
def test_what_is_no_id(value: Any) -> None:
    with pytest.raises(ValueError, match="is no id"):
        as_key(value)


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3.0), (2.5, 2.5), (" -12.5 ", -12.5), ("1e2", 100.0), (".5", 0.5)]
)
def test_numbers(value: Any, number: float) -> None:
    assert as_number(value) == number


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [1],
        "12,5",
        "1_0",
        "nan",
        "inf",
        "",
        float("inf"),
        float("nan"),
        10**400,
        "1e400",
    ],
)
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="is no finite number"):
        as_number(value)


@pytest.mark.parametrize("value", [0, -3, 64.5, "0"])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValueError, match="is no number of pixels"):
        as_size(value)


@pytest.mark.parametrize(
    ("value", "flag"),
    [(0, False), (1, True), (1.0, True), (True, True), ("0", False), ("True", True), (None, False)],
)
def test_flags(value: Any, flag: bool) -> None:
    assert as_flag(value) is flag


@pytest.mark.parametrize("value", [2, "maybe", [], {}, float("nan")])
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(ValueError, match="is neither 0 nor 1"):
        as_flag(value)


@pytest.mark.parametrize("value", ["[1, 2, 3, 4]", [1, 2, 3], [1, 2, 3, 4, 5], {"x": 1}, [[1] * 4]])
def test_what_is_no_box(value: Any) -> None:
    with pytest.raises(ValueError, match="is no list of four numbers"):
        as_box(value)


def test_hull_is_that_of_pycocotools() -> None:
    polygons = [
        [10.0, 12.0, 30.0, 12.0, 30.0, 40.0, 10.0, 40.0],
        [5.0, 20.0, 8.0, 20.0, 8.0, 22.0, 5.0, 22.0],
    ]
    joined = mask.merge(mask.frPyObjects(polygons, 60, 60))
    assert hull(polygons) == tuple(mask.toBbox(joined)) == (5.0, 12.0, 25.0, 28.0)
    assert hull(polygons[0]) == (10.0, 12.0, 20.0, 28.0)


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        ({"counts": "abc", "size": [4, 4]}, r"run lengths \(RLE\)"),
        ([], "no bbox"),
        ([[1, 2, 3, 4]], "is no polygon"),
        ([[1, 2, 3, 4, "x", 6]], "'x' is no finite number"),
        ([[1, 2, 3, 4, 5, 6], 7], "7 is no polygon"),
    ],
)
def test_what_has_no_hull(outline: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hull(outline)


def test_foreign_values_are_shown_in_a_few_words() -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep, deep]
    assert len(shown(deep)) < 1000
    assert len(shown("x" * 10**6)) < 100
    assert shown(10**5000) == "a huge number" or len(shown(10**5000)) < 100
    assert (shown(None), shown(True)) == ("null", "true")
