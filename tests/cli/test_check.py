"""Whole configurations: every problem in one error."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_prune.cli.check import check_config
from lightning_prune.errors import ConfigError


def config(**changes: Any) -> Any:
    cfg = OmegaConf.create(
        {
            "seed": 0,
            "task": "train",
            "ckpt_path": None,
            "monitor": "val/map50_95",
            "dense_epochs": 2,
            "recovery_epochs": 2,
            "output_dir": "x",
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
        ({"model__lr": "fast"}, "model.lr='fast': pass a number"),
        ({"model__lr": True}, "model.lr=true: pass a number"),
        ({"model__optimizer": "adam"}, "model.optimizer='adam': pass 'sgd' or"),
        ({"model__names": [1]}, "model.names=[1]: pass a list of texts or null"),
        ({"model__rate": 1}, "model.rate is not known to Line. Allowed: lr, names"),
        ({"model__lr": "???"}, "model.lr has no value: pass model.lr=..."),
        ({"trainer__max_epoch": 1}, "Did you mean trainer.max_epochs"),
        ({"trainer__precision": "half"}, "trainer.precision='half': pass"),
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
        ({"seed": "abc"}, "seed='abc': pass an integer"),
        ({"seed": 2**32}, f"seed={2**32}: pass an integer in [0, {2**32 - 1}]"),
        (
            {"dense_epochs": 10**30},
            "dense_epochs=1" + "0" * 30 + ": pass a number below",
        ),
        ({"model__lr": float("nan")}, "model.lr=nan: pass a finite number"),
        ({"data__points": 10**30}, "pass a number below 2^63"),
        ({"ckpt_path": "no.ckpt"}, "ckpt_path=no.ckpt is no file"),
        ({"trainer__limit_train_batches": 0}, "trainer.limit_train_batches=0 trains nothing"),
        ({"trainer__limit_test_batches": 0.0}, "trainer.limit_test_batches=0.0 tests nothing"),
        ({"trainer__max_epochs": 0}, "trainer.max_epochs=0 trains nothing"),
        (
            {"trainer__check_val_every_n_epoch": 0},
            "trainer.check_val_every_n_epoch=0: pass an integer of at least 1",
        ),
        ({"trainer__accumulate_grad_batches": -1}, "pass an integer of at least 1"),
        ({"trainer__devices": 10**9}, "trainer.devices=1000000000: pass an integer in [-1, 4096]"),
        ({"prunning": {"a": {"_target_": "x"}}}, "prunning is not known to the root of the conf"),
        ({"dense_epoch": 3}, "Did you mean dense_epochs or"),
        ({"mine": {"_target_": "builtins.dict"}}, "mine is not known to the root"),
        ({"model___target_": 3}, "model._target_=3: pass the name of a class"),
        ({"model___target_": "os.path"}, "model._target_='os.path' is a module: pass the name of"),
        ({"model___target_": "builtins.dict"}, "'builtins.dict' is no LightningModule"),
        ({"data___target_": "lightning.pytorch.Trainer"}, "is no LightningDataModule"),
        (
            {"callbacks__a": {"_target_": "builtins.dict"}},
            "callbacks.a._target_='builtins.dict' is no",
        ),
        ({"model___args_": [0.1]}, "model._args_ is not allowed: name the arguments"),
    ],
)
def test_one_sentence(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        check_config(config(**changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("monitor", "monitor has no value: pass +monitor=..."),
        ("output_dir", "output_dir has no value"),
        ("callbacks", "callbacks is missing: choose an option, such as callbacks=none"),
        ("logger", "logger is missing"),
        ("data", "data=None is not an object"),
        ("trainer.max_epochs", "trainer.max_epochs is missing"),
    ],
)
def test_what_a_run_reads_must_be_there(key: str, message: str):
    cfg = config()
    group, _, last = key.rpartition(".")
    del (cfg[group] if group else cfg)[last]
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("criterion", "wanted"),
    [
        ({"_target_": "lightning_prune.policies.criteria.magnitude.Magnitude"}, None),
        ({"_target_": "lightning_prune.policies.criteria.criterion.Criterion"}, None),
        ({"_target_": "builtins.dict"}, "a Criterion (in YAML by _target_) or null"),
        (
            {
                "_target_": "lightning_prune.policies.criteria.magnitude.Magnitude",
                "_partial_": True,
            },
            "a Criterion (in YAML by _target_) or null",
        ),
        ("magnitude", "a Criterion (in YAML by _target_) or null"),
    ],
)
def test_an_object_must_be_of_the_kind_that_its_argument_wants(criterion: Any, wanted: str | None):
    target = "lightning_prune.callbacks.channel_masker.ChannelMasker"
    cfg = config(pruning__masker={"_target_": target, "criterion": criterion})
    if wanted is None:
        check_config(cfg)
        return
    with pytest.raises(ConfigError, match=r"^pruning\.masker\.criterion=.*: pass") as caught:
        check_config(cfg)
    assert str(caught.value).endswith(wanted)


def test_ranges_of_constructors_are_refused_with_the_other_problems():
    target = "lightning_prune.callbacks.channel_masker.ChannelMasker"
    masker = {
        "_target_": target,
        "mac_target": 7,
        "keep_range": [0.5],
        "fast_widths": {"vector": 0},
    }
    cfg = config(pruning__masker=masker | {"layers": []}, model__lr="fast")
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "model.lr='fast'",
        "pruning.masker.mac_target=7",
        "pruning.masker.keep_range=[0.5]",
        "pruning.masker.fast_widths.vector=0",
        "pruning.masker.layers=[]",
    ]
    assert (
        "pruning.masker.mac_target=7: pass a number in (0, 1) or null, the fraction of the dense "
        "model's MACs that remains, for example 0.5"
    ) in str(caught.value)


def test_a_rule_needs_what_its_protocol_names():
    target = "lightning_prune.callbacks.channel_masker.ChannelMasker"
    rule = {"_target_": "lightning_prune.policies.layers.widest_layers.WidestLayers"}
    check_config(config(pruning__masker={"_target_": target, "layers": rule}))
    with pytest.raises(ConfigError, match=r"^pruning\.masker\.layers="):
        check_config(
            config(pruning__masker={"_target_": target, "layers": {"_target_": "builtins.dict"}})
        )


def test_a_wrong_value_is_named_where_it_stands_not_where_it_is_used():
    cfg = config(rate="fast", model__lr="${rate}")
    with pytest.raises(
        ConfigError, match=r"^model\.lr='fast'"
    ):  # nothing is wrong with `rate` itself
        check_config(cfg)
    cfg = config(seed="x", data__points="${seed}", model__lr="${data.points}")
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert str(caught.value) == "seed='x': pass an integer in [0, 4294967295]"


def test_a_part_of_a_wrong_node_is_not_named_again():
    cfg = config(model__lr={"_target_": "no.such.Thing"})
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_keys_of_one_object_make_one_sentence():
    cfg = config(model__zzz=1, model__yyy=2, model__namess=3)
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    near, far = str(caught.value).splitlines()
    assert near.startswith("model.namess is not known to Line. Did you mean model.names?")
    assert far.startswith("model.zzz is not known to Line (nor yyy). Allowed: lr")


def test_a_reference_into_what_is_left_out_says_so():
    cfg = config(callbacks__first=None, seed="${callbacks.first.seed}")
    with pytest.raises(ConfigError, match=r"seed: it refers to callbacks\.first\.seed, but"):
        check_config(cfg)


def test_arithmetic_with_a_wrong_number_names_the_number():
    cfg = config(recovery_epochs="1", model__lr="${part:${recovery_epochs},0.5}")
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert str(caught.value) == "recovery_epochs='1': pass an integer of at least 0"


def test_arguments_that_a_logger_passes_on_are_known():
    logger = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": "x"}
    check_config(config(logger__a={**logger, "flush_secs": 3}))
    with pytest.raises(ConfigError, match=r"^logger\.a\.save_dirs is not known to TensorBoardLog"):
        check_config(config(logger__a={**logger, "save_dirs": "y"}))


def test_a_reference_that_cannot_be_followed_is_shown():
    cfg = config(rows=[1], seed="${rows.first}")
    with pytest.raises(ConfigError, match=r"^seed: .* \(needed by \$\{rows\.first\}\)$"):
        check_config(cfg)


def test_a_name_in_two_groups_is_refused():
    one = {"_target_": "lightning.pytorch.callbacks.Callback"}
    with pytest.raises(ConfigError, match=r"^pruning\.a and callbacks\.a have one name"):
        check_config(config(pruning__a=one, callbacks__a=one))


@pytest.mark.parametrize("group", ["pruning", "callbacks", "logger"])
def test_the_same_object_twice_is_refused(group: str):
    one = {"_target_": "lightning.pytorch.callbacks.Callback"}
    if group == "logger":
        one = {"_target_": "lightning_prune.runs.csv_logger.AppendingCsvLogger", "save_dir": "x"}
    check_config(config(**{f"{group}__a": one, f"{group}__b": None, f"{group}__c": None}))
    with pytest.raises(ConfigError, match=rf"^{group}\.a and {group}\.b are the same"):
        check_config(config(**{f"{group}__a": one, f"{group}__b": one}))


def test_root_keys_that_something_reads_are_welcome():
    cfg = config(rates={"slow": 0.1}, model__lr="${rates.slow}", note="for the paper")
    assert check_config(cfg)["model"]["lr"] == 0.1


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
