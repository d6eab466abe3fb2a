"""Objects from nodes; a constructor's refusal names the node."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_prune.cli.build import build, build_all
from lightning_prune.errors import ConfigError


def node(cfg: dict[str, Any]) -> Any:
    return OmegaConf.create({"pruning": cfg})


def test_containers_become_plain_and_objects_pass_as_they_are():
    marker = object()
    cfg = node({"a": {"_target_": "builtins.dict", "items": [1, {"x": 2}]}})
    made = build(cfg.pruning.a, "anything", marker=marker)
    assert made == {"items": [1, {"x": 2}], "marker": marker}
    assert type(made["items"]) is list
    assert type(made["items"][1]) is dict


def test_refusal_names_the_node():
    cfg = node({"a": {"_target_": "tests.cli.fakes.Line", "lr": -1}})
    with pytest.raises(ConfigError, match=r"^pruning\.a: lr=-1 is not positive"):
        build(cfg.pruning.a, "pruning.a")


def test_refusal_of_a_nested_object_names_the_inner_node():
    inner = {"_target_": "tests.cli.fakes.Line", "lr": -1}
    cfg = node({"a": {"_target_": "builtins.dict", "policy": inner}})
    with pytest.raises(ConfigError, match=r"^pruning\.a\.policy: lr=-1 is not positive"):
        build(cfg.pruning.a, "pruning.a")


def test_faults_keep_their_type():
    cfg = node({"a": {"_target_": "builtins.dict", "p": {"_target_": "tests.cli.fakes.fault"}}})
    with pytest.raises(RuntimeError, match="a fault of the program"):
        build(cfg.pruning.a, "pruning.a")


def test_null_entries_and_absent_groups_are_left_out():
    cfg = node({"a": {"_target_": "builtins.dict"}, "b": None})
    assert build_all(cfg.pruning, "anything") == {"a": {}}
    assert build_all(None, "pruning") == {}


@pytest.mark.parametrize(
    "path", ["data", "model", "trainer", "pruning.a", "callbacks.a", "logger.a"]
)
def test_what_is_of_another_kind_is_refused(path: str):
    cfg = node({"a": {"_target_": "builtins.dict"}})
    with pytest.raises(ConfigError, match=rf"^{path}: builtins\.dict gives a dict, no [A-Z]"):
        build(cfg.pruning.a, path)


def test_stages_whose_states_are_alike_are_refused():
    pruner = {"_target_": "lightning_prune.callbacks.physical_pruner.PhysicalPruner"}
    resetter = {"_target_": "lightning_prune.callbacks.optimizer_resetter.OptimizerResetter"}
    assert list(build_all(node({"a": pruner, "b": resetter}).pruning, "pruning")) == ["a", "b"]
    cfg = node({"a": resetter, "b": pruner, "again": resetter})
    with pytest.raises(ConfigError, match=r"^pruning\.a and pruning\.again are alike, Optim"):
        build_all(cfg.pruning, "pruning")
    trainer = OmegaConf.create({"_target_": "lightning.pytorch.Trainer", "accelerator": "cpu"})
    callbacks = [build(one, "pruning.x") for one in (cfg.pruning.a, cfg.pruning.again)]
    with pytest.raises(ConfigError, match="OptimizerResetter and OptimizerResetter are alike"):
        build(trainer, "trainer", callbacks=callbacks)
