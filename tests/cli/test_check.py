"""Whole configurations: every problem in one error."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_prune.cli.check import check_config, unknown_key
from lightning_prune.cli.errors import ConfigError


def config(**changes: Any) -> Any:
    cfg = OmegaConf.create(
        {
            "seed": 0,
            "task": "train",
            "data": {"_target_": "tests.cli.fakes.Points", "points": 8},
            "model": {"_target_": "tests.cli.fakes.Line", "lr": 0.1},
            "trainer": {"_target_": "lightning.pytorch.Trainer", "max_epochs": None},
            "callbacks": {},
            "logger": None,
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return cfg


def test_sound_config_comes_back_resolved():
    cfg = config(model__lr="${rate}", rate=0.5)
    assert check_config(cfg)["model"] == {"_target_": "tests.cli.fakes.Line", "lr": 0.5}


def test_a_reference_to_nothing_is_named():
    cfg = config()
    cfg.model = {"_target_": "tests.cli.fakes.Line", "lr": "${rate}"}
    with pytest.raises(ConfigError, match=r"model\.lr: Interpolation key 'rate' not found"):
        check_config(cfg)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__lr": "fast"}, "model.lr='fast' is not allowed: give a number"),
        ({"model__lr": True}, "model.lr=True is not allowed: give a number"),
        ({"model__optimizer": "adam"}, "model.optimizer='adam' is not allowed: give 'sgd' or"),
        ({"model__names": [1]}, "model.names=[1] is not allowed: give a list of texts or null"),
        ({"model__rate": 1}, "model.rate is not known to Line. Allowed: lr, names"),
        ({"model__lr": "???"}, "model.lr has no value: pass model.lr=..."),
        ({"trainer__max_epoch": 1}, "Did you mean trainer.max_epochs"),
        ({"trainer__precision": "half"}, "trainer.precision='half' is not allowed"),
        ({"model": "yolov9"}, "model='yolov9' is not an object"),
        ({"callbacks": "some"}, "callbacks='some' is not a set of objects"),
        ({"callbacks__mine": {"patience": 3}}, "callbacks.mine has no _target_"),
        (
            {"pruning__keeper": {"_target_": "tests.cli.fakes.DenseKeeper", "folder": "x"}},
            "pruning.keeper.start_epoch has no value: DenseKeeper needs it",
        ),
        (
            {"callbacks__stop": {"_target_": "lightning.pytorch.callbacks.EarlyStoping"}},
            "callbacks.stop._target_='lightning.pytorch.callbacks.EarlyStoping' cannot be imported",
        ),
        ({"seed": "abc"}, "seed='abc' is not allowed: give an integer"),
    ],
)
def test_one_sentence(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        check_config(config(**changes))
    assert message in str(caught.value)


def test_nested_objects_are_checked_too():
    inner = {"_target_": "tests.cli.fakes.DenseKeeper", "start_epoch": "x", "folder": "y"}
    cfg = config(
        callbacks__outer={"_target_": "types.SimpleNamespace", "policy": inner, "more": [inner]}
    )
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert "callbacks.outer.policy.start_epoch='x'" in str(caught.value)
    assert "callbacks.outer.more[0].start_epoch='x'" in str(caught.value)


def test_all_problems_come_at_once():
    with pytest.raises(ConfigError) as caught:
        check_config(config(model__lr="x", seed=-1, data__points=None))
    assert len(str(caught.value).splitlines()) == 3


def test_null_leaves_an_entry_out():
    check_config(config(callbacks__progress=None))


def test_unknown_key_without_a_near_miss_lists_all():
    text = unknown_key("model.zzz", "Line", ["lr", "names", "_target_"])
    assert text == "model.zzz is not known to Line. Allowed: lr, names"
