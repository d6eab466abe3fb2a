"""Recipes in Python are those of conf/pruning, and constructors default to conf/stage."""

import inspect
from typing import Any

import hydra
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from lightning_prune import recipes
from lightning_prune.cli.build import build_all
from lightning_prune.policies.criteria.fpgm import FPGM
from lightning_prune.runs.configuration.config_folder import config_folder

CONF = config_folder()
NAMES = sorted(path.stem for path in (CONF / "pruning").glob("*.yaml"))
STAGES = sorted(path.stem for path in (CONF / "stage").glob("*.yaml"))
# Stage values that no constructor can have: they hold for the shipped front end or model only.
ELSEWHERE = {
    "pruning_report": {"show"},  # train.py prints the report itself, after the test
    "slice_masker": {"layers"},  # the last layers of the detector's class branch
}
HEAD = ["!network.head.classes.?.2"]


def composed(name: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def contents(value: Any) -> Any:
    """Return what an object is made of, as plain values that can be compared."""
    if isinstance(value, dict):
        return {key: contents(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [contents(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if type(value).__module__.startswith("lightning_prune"):
        return type(value).__name__, contents(vars(value))
    return value


def of_yaml(name: str, *overrides: str) -> list[Callback]:
    words = [f"+pruning={name}", "output_dir=x", "monitor=val/m", "pruning.report.show=true"]
    cfg = composed("train", *words, *overrides)
    return list(build_all(cfg.pruning, "pruning").values())


def settings(name: str) -> dict[str, Any]:
    """Return what a recipe in Python is told that the command line says at its root."""
    found: dict[str, Any] = {"folder": "x"}
    if name not in ("slice", "channel_reset"):
        found["monitor"] = "val/m"
    if name == "slice":
        found["layers"] = HEAD
    if name == "channel_and_slice":
        found["slices"] = {"layers": HEAD}
    return found


def test_every_recipe_has_both_forms():
    assert sorted(recipes.RECIPES) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epochs", [(), (6, 10)])
def test_a_recipe_in_python_equals_the_composed_one(name: str, epochs: tuple[int, ...]):
    words = [f"{key}_epochs={n}" for key, n in zip(("dense", "recovery"), epochs, strict=False)]
    given = {word.partition("=")[0]: int(word.partition("=")[2]) for word in words}
    recipe = recipes.RECIPES[name]
    if "recovery_epochs" not in inspect.signature(recipe).parameters:
        given.pop("recovery_epochs", None)
    assert contents(recipe(**given, **settings(name))) == contents(of_yaml(name, *words))


def test_settings_reach_the_stages_as_overrides_do():
    words = [
        "pruning.masker.mac_target=0.3",
        "pruning.masker.round_to=4",
        "pruning.masker.layers=[net.*]",
        "pruning.masker.fast_widths=null",
        "pruning.regularizer.reg=0.05",
        "criterion=fpgm",
    ]
    made = recipes.channel(
        0.3, round_to=4, layers=["net.*"], fast_widths=None, reg=0.05, criterion=FPGM(),
        **settings("channel"),
    )  # fmt: skip
    assert contents(made) == contents(of_yaml("channel", *words))
    made = recipes.sequential_activation(seed=3, dry_run=True, **settings("sequential_activation"))
    words = ["seed=3", "pruning.masker.dry_run=true"]
    assert contents(made) == contents(of_yaml("sequential_activation", *words))
    made = recipes.slice(reg=1e-4, end_epoch=20, block_size=4, **settings("slice"))
    words = [f"pruning.{word}" for word in ("masker.end_epoch=20", "masker.block_size=4")]
    assert contents(made) == contents(of_yaml("slice", "pruning.regularizer.reg=1e-4", *words))


def test_an_unknown_setting_is_named_with_the_nearest():
    with pytest.raises(
        TypeError, match=r"mac_traget=0\.3 .* Did you mean mac_target\? .*Masker has"
    ):
        recipes.channel(mac_traget=0.3)


@pytest.mark.parametrize("name", STAGES)
def test_constructors_default_to_the_stage(name: str):
    node: Any = OmegaConf.to_container(composed(f"stage/{name}"), resolve=False)["stage"]
    target = hydra.utils.get_object(node["_target_"])
    parameters = inspect.signature(target).parameters
    own = {
        key: value
        for key, value in node.items()
        if key != "_target_" and "${" not in str(value) and key not in ELSEWHERE.get(name, ())
    }
    assert own  # else the test says nothing
    built = target(**{key: _made(value) for key, value in own.items()})
    assert contents(built) == contents(target()), name
    # What is shown in a signature is what is meant by it.
    shown = {key: parameters[key].default for key, value in own.items() if _is_plain(value)}
    assert {k: _listed(v) for k, v in shown.items()} == {k: own[k] for k in shown}


def _made(value: Any) -> Any:
    return hydra.utils.instantiate(value) if isinstance(value, dict) else value


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
