"""Which objects a node will build."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.cli.built_objects import builds
from tests.cli.fakes import DenseKeeper, Line


def node(name: str, **keys: Any) -> dict[str, Any]:
    return {"_target_": f"tests.cli.fakes.{name}", **keys}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (node("Line"), Line, True),
        (node("Line"), object, True),
        (node("Line"), DenseKeeper, False),
        (node("Line", _partial_=True), Line, False),
        (node("Line", _partial_=True), Callable[[], Line], True),
        ({"_target_": "no.Such"}, Line, True),
        ({"lr": 0.1}, Line, False),
        ("weights.pt", Path, True),
        ("weights.pt", Line, False),
        (3, Path, False),
        (None, Line, False),
    ],
)
def test_what_passes_for_an_object(value: Any, kind: Any, expected: bool):
    assert builds(value, kind) == expected
