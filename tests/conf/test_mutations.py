"""Mutated configurations: each comes to its first batch, or is refused before, in plain words."""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from lightning_prune.annotations import fits
from lightning_prune.cli.build import build
from lightning_prune.cli.node_problems import type_hints
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder
from tests.conf.mutations import Mutation, mutations, nodes
from tests.conf.outcomes import outcome
from tests.overrides import TINY, TINY_RECIPES

CONF = config_folder()
# Options that need a device or an account; their keys are those of others.
ELSEWHERE = {"gpu", "wandb"}


def options(group: str) -> list[str]:
    return sorted({path.stem for path in (CONF / group).glob("*.yaml")} - ELSEWHERE)


RECIPES = {name: [f"+pruning={name}", *TINY_RECIPES.get(name, [])] for name in options("pruning")}
BASES = {
    **{f"pruning={name}": words for name, words in RECIPES.items()},
    **{f"criterion={n}": [*RECIPES["channel"], f"criterion={n}"] for n in options("criterion")},
    **{
        f"{group}={name}": [f"{group}={name}"]
        for group in ("callbacks", "trainer", "logger")
        for name in options(group)
    },
}
FEW = {
    "deadline": None,  # a trace takes a second where others share the processor
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@functools.cache
def base(name: str) -> DictConfig:
    """A tiny run of a recipe, a criterion, or an option of another group."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["output_dir=run", *TINY, *BASES[name]])


@functools.cache
def drawn_from(name: str) -> st.SearchStrategy[Mutation]:
    return st.one_of([st.sampled_from(some) for some in mutations(base(name)).values()])


def mutated(name: str, changes: list[Mutation]) -> Any:
    tree = OmegaConf.to_container(base(name), resolve=False)
    for change in changes:
        change.apply(tree)  # type: ignore[arg-type]
    return tree


def judge(name: str, changes: list[Mutation]) -> None:
    tree = mutated(name, changes)
    names = [word for change in changes for word in change.names]
    assert outcome(tree).fault(tree, names) is None


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@st.composite
def examples(draw: st.DrawFn, most: int = 1) -> tuple[str, list[Mutation]]:
    name = draw(st.sampled_from(sorted(BASES)))
    return name, draw(st.lists(drawn_from(name), min_size=1, max_size=most, unique_by=str))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_as_it_is_starts(name: str):
    tree = mutated(f"pruning={name}", [])
    found = outcome(tree)
    assert found.started
    assert found.acts
    assert found.fault(tree, []) is None


def numbers_of_ours() -> dict[tuple[str, str], DictConfig]:
    """Return each number with a point that a class of the project takes, and a node with it."""
    found = {}
    for name in BASES:
        cfg = base(name).copy()
        cfg.model.num_classes = 10
        for node in nodes(OmegaConf.to_container(cfg, resolve=True)):
            target = node["_target_"]
            hints = type_hints(get_object(target)) if target.startswith("lightning_prune.") else {}
            for key in hints.keys() & node.keys():
                if any(fits(hints[key], n) for n in (0.5, 500.0)) and not fits(hints[key], "x"):
                    found[target, str(key)] = node
    return found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_constructors_refuse_what_is_no_number(value: float):
    # check_config refuses it too; whoever builds in Python has only the constructor.
    numbers = numbers_of_ours()
    assert len(numbers) > 30
    for (_, key), node in numbers.items():
        with pytest.raises(ConfigError, match=rf"\b{key}="):
            build(OmegaConf.create({**node, key: value}), "anything")


@settings(max_examples=40, **FEW)
@given(example=examples())
def test_a_mutated_configuration_starts_or_is_refused(example: tuple[str, list[Mutation]]):
    judge(*example)


@pytest.mark.slow
@settings(max_examples=2000, phases=[Phase.generate], **FEW)
@given(example=examples(most=3))
def test_many_mutated_configurations(example: tuple[str, list[Mutation]]):
    judge(*example)
