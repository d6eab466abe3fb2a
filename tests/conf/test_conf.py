"""The shipped configs: every key is an argument, every option composes, every experiment runs."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf

from lightning_prune.annotations import fits
from lightning_prune.cli.check import check_config
from lightning_prune.cli.node_problems import type_hints
from lightning_prune.cli.train import run
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder
from tests.overrides import TINY, TINY_NEURAL, TINY_NEURAL_RECIPES, TINY_WARNINGS

CONF = config_folder()
FILES = sorted(CONF.rglob("*.yaml"))
NAMES = [str(path.relative_to(CONF)) for path in FILES]
GROUPS = sorted({path.parent.name for path in FILES if path.parent != CONF})
# A search needs a plugin of Hydra that is not installed; tests/cli/test_optuna.py runs it.
OPTIONS = [
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in FILES
    if path.parent != CONF and "/hydra/sweeper" not in path.read_text()
]
STAGES = sorted(path.stem for path in FILES if path.parent.name == "stage")
# Groups that the root's defaults list does not name are added with a plus.
ROOT_GROUPS = {"data", "model", "trainer", "callbacks", "logger"}
PARTS = {"stage", "penalty", "widths", "augmentation"}  # of recipes and data sets
HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def words_for(group: str, option: str) -> list[str]:
    if group == "criterion":  # part of a recipe
        return ["+pruning=sequential_activation", f"criterion={option}"]
    if group == "penalty":  # of any recipe that regularizes channels
        return ["+pruning=channel", f"penalty@pruning.regularizer.penalty={option}"]
    if (group, option) == ("stage", "distiller"):  # added to any recipe
        return ["+pruning=channel", "+stage@pruning.distiller=distiller"]
    if group in PARTS:
        part = re.compile(rf"/{group}(/{option}@|@.*: {option}\b)")
        users = [path for path in FILES if part.search(path.read_text())]
        recipes = [path for path in users if path.parent.name == "pruning"]
        assert users, f"no recipe and no stage has {group}/{option}"
        return [f"+pruning={recipes[0].stem if recipes else 'channel'}"]
    if group == "switch":  # of one model
        model = ["model=learned_res_optimized_gru_small", "data=simulated_cells"]
        return [*model, f"+switch={option}"]
    return [f"{'' if group in ROOT_GROUPS else '+'}{group}={option}"]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_keys_are_the_arguments(group: str, option: str):
    cfg = OmegaConf.to_container(composed(*words_for(group, option), "output_dir=x"))
    for node in nodes(cfg):
        target = hydra.utils.get_object(node["_target_"])
        parameters = inspect.signature(target).parameters
        keys = node.keys() - HYDRA_KEYS
        if issubclass(target, WandbLogger):
            keys -= {"resume"}  # one of those that it hands on to wandb.init
        assert keys <= parameters.keys(), f"{node['_target_']} does not know all of {keys}"
        if node["_target_"].startswith("lightning_prune."):
            assert keys == parameters.keys(), f"{node['_target_']}: shown and accepted keys differ"


def stage_node(name: str) -> dict[str, Any]:
    """Return a stage with what its defaults list names, before anything is resolved."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg: Any = OmegaConf.to_container(compose(f"stage/{name}"), resolve=False)
    return dict(cfg["stage"])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_all_arguments_of_its_constructor(name: str):
    node = stage_node(name)
    target = hydra.utils.get_object(node["_target_"])
    assert node.keys() - HYDRA_KEYS == inspect.signature(target).parameters.keys()


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_key_has_a_comment(path: Path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "the first line says what the file is"
    for line in lines:
        value = re.match(r"\s*[\w/]+: *(?P<value>[^#\s].*)$", line)
        if value and "_target_:" not in line:
            assert re.search(r" # \S", line), f"no comment: {line}"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_passes_the_check(group: str, option: str, tmp_path: Path):
    cfg = composed(*words_for(group, option), f"output_dir={tmp_path}")
    for key in OmegaConf.missing_keys(cfg):
        place, _, name = key.rpartition(".")
        hint = type_hints(hydra.utils.get_object(OmegaConf.select(cfg, place)["_target_"]))[name]
        value = str(tmp_path)
        OmegaConf.update(cfg, key, value if fits(hint, value) else [value])
    check_config(cfg)


@pytest.mark.parametrize(
    "word", ["+stage=slice_masker", "+penalty=bn_scale", "+augmentation=photos"]
)
def test_parts_are_refused_at_the_root(word: str, tmp_path: Path):
    key = word[1:].partition("=")[0]
    with pytest.raises(ConfigError, match=f"^{key} is not known to the root"):
        check_config(composed(word, f"output_dir={tmp_path}"))


def test_recipes_and_stages_stand_once():
    lines = [
        line
        for path in FILES
        if path.parent.name in ("stage", "pruning")
        for line in path.read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    assert len(lines) <= 260


def test_pruning_is_absent_from_the_defaults():
    # With `pruning: null` in the defaults list Hydra refuses `+pruning=NAME`.
    assert "pruning" not in composed()


def test_every_folder_is_a_package():
    # Hydra finds the configs of an installed wheel by `pkg://lightning_prune.conf`.
    folders = {CONF, *(path.parent for path in FILES)}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def experiments() -> list[str]:
    return [option for group, option in OPTIONS if group == "experiment"]


@pytest.mark.filterwarnings(*TINY_WARNINGS)
@pytest.mark.parametrize("name", experiments())
def test_every_experiment_runs(name: str, tmp_path: Path):
    words = TINY_NEURAL if "neural" in name else TINY
    if name == "neural_response":
        words = [*words, *TINY_NEURAL_RECIPES["neural"]]
    metric = run(composed(f"+experiment={name}", f"output_dir={tmp_path}", *words))
    assert metric is not None
    assert 0 <= metric <= 1
