"""Values against annotations, and annotations in words."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lightning_prune.annotations import Above, AtLeast, Between, Such, describe, fits, shown, wanted

ALLOWED = [
    (1, int),
    (1, float),
    (0.5, float),
    (True, bool),
    ("n", str),
    (None, int | None),
    (None, Optional[float]),  # noqa: UP045
    (2, Union[list[int], str, int]),  # noqa: UP007
    ([0, 1], list[int] | str),
    ([0.1, 2], tuple[float, float]),
    ([1, 2, 3], tuple[int, ...]),
    ([1], Sequence[int]),
    ("s", Literal["n", "s"]),
    (16, Literal[64, 16, "bf16"]),
    ({"a": 1}, dict[str, int]),
    (Path("weights.pt"), Path | None),
    (np.int64(3), int),
    (np.float32(0.5), float),
    (object, Any),
]
REFUSED = [
    (True, int),
    (True, float),
    (1, bool),
    (1.0, int),
    ("1", int),
    ("abc", float),
    (None, str),
    (1, str),
    ("x", Literal["n", "s"]),
    (True, Literal[1]),
    ([0, "a"], list[int]),
    ([0.1], tuple[float, float]),
    ("ab", list[str]),
    ([1], dict[str, int]),
    (3, Path | None),
]


@pytest.mark.parametrize(("value", "annotation"), ALLOWED)
def test_allowed(value: Any, annotation: Any):
    assert fits(annotation, value)


@pytest.mark.parametrize(("value", "annotation"), REFUSED)
def test_refused(value: Any, annotation: Any):
    assert not fits(annotation, value)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (None | str, "text or null"),
        (float | int, "a number or an integer"),
        (Literal["sgd", "adamw"] | None, "'sgd' or 'adamw' or null"),
        (list[str], "a list of texts"),
        (tuple[float, float], "a list of 2 numbers"),
        (dict[str, int], "a mapping"),
        (Literal[1, 2, "bf16"], "1, 2 or 'bf16'"),
        (Path, "a Path (in YAML by _target_)"),
    ],
)
def test_words(annotation: Any, words: str):
    assert describe(annotation) == words


RANGES = [
    (Annotated[int, AtLeast(1)], [1, 10**9], [0, -1, 1.0, "1", None, math.inf]),
    (Annotated[float | None, Above(0)], [1e-9, 3, None], [0, -1.0, math.inf, math.nan, True]),
    (Annotated[float, Between(0, 1, ends="(]")], [1e-9, 1], [0, 1.1, math.nan]),
    (Annotated[float, Between(0, 1, ends="[)")], [0, 0.9], [1, -0.1]),
    (Annotated[int | tuple[int, int], AtLeast(0)], [3, [0, 4]], [-1, [0, -1], [1, 2, 3], []]),
    (list[Annotated[int, AtLeast(1)]], [[], [1]], [[0], [1, 0], 1]),
    (Annotated[list[int] | None, Such(bool, "a filled list")], [[0], None], [[], ["a"]]),
]


@pytest.mark.parametrize(("annotation", "allowed", "refused"), RANGES)
def test_ranges(annotation: Any, allowed: list[Any], refused: list[Any]):
    assert [value for value in allowed if not fits(annotation, value)] == []
    assert [value for value in refused if fits(annotation, value)] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[int, AtLeast(1)], "an integer of at least 1"),
        (Annotated[float | None, Above(0)], "a number above 0 or null"),
        (Annotated[int, Between(1, 2**32 - 1)], "an integer in [1, 4294967295]"),
        (Annotated[int | tuple[int, int], AtLeast(0)],
         "an integer of at least 0 or a list of 2 integers of at least 0"),
        (list[Annotated[float, Between(0, 1, ends="()")]], "a list of numbers in (0, 1)"),
        (Annotated[list[int] | None, Such(bool, "a filled list")], "a filled list or null"),
        (Annotated[float, AtLeast(0, "a decay, for example 0.1")],
         "a number of at least 0, a decay, for example 0.1"),
    ],
)  # fmt: skip
def test_ranges_in_words(annotation: Any, words: str):
    assert wanted(annotation) == words


def test_a_node_passes_for_the_object_that_it_builds():
    annotation = Annotated[list[str] | Path | None, Such(len, "a list of names")]
    node = {"_target_": "x.Y"}
    assert fits(annotation, node, lambda value, kind: value is node and kind is Path)
    assert not fits(annotation, node, lambda value, kind: False)


def test_values_are_shown_as_in_a_file_and_not_at_any_length():
    assert [shown(value) for value in (None, True, "a", 1.5)] == ["null", "true", "'a'", "1.5"]
    assert len(shown("x" * 1000)) == 83


def test_an_iterator_passes_and_is_not_used_up():
    values = iter([1, 2])
    assert fits(Iterable[int], values)
    assert not fits(list[int], values)
    assert list(values) == [1, 2]


def test_a_loader_passes_where_an_iterable_is_wanted():
    loader = DataLoader([1, 2])
    assert fits(Iterable[Any], loader)
    assert not fits(list[Any], loader)
    assert not fits(Iterable[Any], None)
    assert not fits(Iterable[Any], {"a": 1})
    assert describe(Iterable[Any]) == "a list"
