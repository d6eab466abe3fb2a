"""Nodes against the signatures of what they build."""

import math
from typing import Any

import pytest

from lightning_prune.cli.node_problems import node_problems, target_of, type_hints, unusual_number
from tests.cli.fakes import Line


def line(**keys: Any) -> dict[str, Any]:
    return {"_target_": "tests.cli.fakes.Line", **keys}


@pytest.mark.parametrize(
    ("node", "path"),
    [
        (line(lr="x"), "lr"),
        (line(lr=math.inf), "lr"),
        (line(rate=1), "rate"),
        (line(_partial_="yes"), "_partial_"),
        (line(_convert_="some"), "_convert_"),
        (line(_args_=[1]), "_args_"),
        ([line(), {"deep": [line(lr="x")]}], "[1].deep[0].lr"),
        ({"_target_": "tests.cli.fakes.DenseKeeper", "folder": "x"}, "start_epoch"),
        ({"_target_": "no.Such"}, "_target_"),
    ],
)
def test_the_path_of_a_problem(node: Any, path: str):
    (problem,) = node_problems(node, "a")
    assert problem.path == (f"a{path}" if path.startswith("[") else f"a.{path}")
    assert problem.text.startswith(problem.path)


def test_sound_nodes_have_none():
    partial = {"_target_": "tests.cli.fakes.DenseKeeper", "_partial_": True}
    nodes = [line(), line(lr=1, names=["a"], _convert_="all"), {"lr": "x"}, [1, None], partial]
    assert not list(node_problems(nodes))


def test_target_of():
    assert target_of(line(), "a") == (Line, None)
    for name in (3, None, "", "math.pi", "os.path", "no.Such"):
        target, problem = target_of({"_target_": name}, "a")
        assert target is None
        assert problem is not None
        assert problem.path == "a._target_"


def test_hints_of_a_class_are_those_of_its_constructor():
    assert type_hints(Line)["lr"] is float


@pytest.mark.parametrize("value", [math.nan, -math.inf, 2**63, -(2**63), [0.5, [math.nan]]])
def test_numbers_without_a_use(value: Any):
    assert unusual_number(value) is not None


@pytest.mark.parametrize("value", [0, 2**63 - 1, 1e308, True, "nan", None, {"a": math.nan}, [1]])
def test_usual_values(value: Any):
    assert unusual_number(value) is None
