"""Of many problems those that cause the others."""

from typing import Any

import pytest

from lightning_prune.cli.problem import first_causes
from lightning_prune.validation import Problem

RAW = {
    "seed": "x",
    "rate": "${seed}",
    "masker": {"criterion": "${criterion}", "layers": ["a", {"seed": "${rate}"}]},
    "criterion": {"p": 1},
    "sum": "${add:${seed},1}",
}


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (["seed", "rate"], ["seed"]),
        (["rate"], ["rate"]),  # nothing else says it
        (["masker.layers[1].seed", "seed"], ["seed"]),  # by way of rate
        (["masker.criterion.p", "criterion.p"], ["criterion.p"]),
        (["masker.criterion.zzz", "criterion.zzz"], ["criterion.zzz"]),
        (["masker", "masker.layers[0]", "masker.criterion"], ["masker"]),
        (["masker.layers", "masker.layers[1].seed"], ["masker.layers"]),
        (["mask", "masker"], ["mask", "masker"]),  # one name begins as the other
        (["seed", "sum"], ["seed", "sum"]),  # more than a reference
        (["seed", "seed"], ["seed"]),
        (["absent.key"], ["absent.key"]),
    ],
)
def test_first_causes(paths: list[str], kept: list[str]):
    problems = [Problem(path, f"{path} is wrong") for path in paths]
    found: Any = first_causes(problems, RAW)
    assert [problem.path for problem in found] == kept
