"""Values against annotations, and annotations in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest

from lightning_prune.cli.annotations import describe, fits

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
    ({"_target_": "x.Y"}, Path | None),
    ("weights.pt", Path | None),
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
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), REFUSED)
def test_refused(value: Any, annotation: Any):
    assert not fits(value, annotation)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (None | str, "text or null"),
        (float | int, "a number or an integer"),
        (Literal["sgd", "adamw"] | None, "'sgd' or 'adamw' or null"),
        (list[str], "a list of texts"),
        (tuple[float, float], "a list of numbers"),
        (dict[str, int], "a mapping"),
        (Path, "an object (Path, given by _target_)"),
    ],
)
def test_words(annotation: Any, words: str):
    assert describe(annotation) == words
