"""Command lines that Hydra or we refuse: one message, exit code 2, no traceback."""

from collections.abc import Callable
from typing import Any

import pytest

from lightning_prune.cli.composition import check_overrides, top_level_keys
from lightning_prune.cli.train import main
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder

DATA = sorted((config_folder() / "data").glob("*.yaml"))
WITH_ROOT = [f"data={path.stem}" for path in DATA if "\nroot: " in path.read_text()]
REFUSED = [
    (["+prunning=x"], "prunning is not known to the command line. Did you mean pruning?"),
    (["prunning=x"], "prunning is not known to the command line. Did you mean pruning?"),
    (["+pruning=typo"], "+pruning=typo is not allowed: 'pruning' is chosen by name"),
    (["+pruning=typo"], "sequential_activation"),
    (["trainer=gpuu"], "trainer=gpuu is not allowed: 'trainer' is chosen by name. Did you mean"),
    (["model.lrr=1"], "model.lrr is not known to the configuration. Did you mean model.lr?"),
    (["+model.lrr=1"], "model.lrr is not known to DetectionModule. Did you mean model.lr?"),
    (["model.lr=abc"], "model.lr='abc': pass a number"),
    (["callbacks.ema.decay=x"], "callbacks.ema.decay='x': pass a number"),
    (["data=yolo_folder"], "data.root has no value: pass data.root=..."),
    (["task=tets"], "task='tets': pass 'train' or 'test'"),
    (["task=test"], "task=test needs a checkpoint: pass ckpt_path=PATH"),
    (["task=test", "ckpt_path=no.ckpt"], "ckpt_path=no.ckpt is no file"),
    (["seed=-1"], "seed=-1: pass an integer in [0, 4294967295]"),
    (["dense_epochs=1.5"], "dense_epochs=1.5: pass an integer"),
    (["dense_epochs=0"], "dense_epochs=0 trains nothing"),
    (["trainer.max_epochs=many"], "trainer.max_epochs='many': pass"),
    (["callbacks.best_checkpoint=3"], "callbacks.best_checkpoint has no _target_"),
    (["model._target_=no.Such"], "model._target_='no.Such' cannot be imported"),
    (["output_dir=${nothing}"], "Interpolation key 'nothing' not found"),
    (["model.lr=["], "'model.lr=[' cannot be read"),
    (["model.lr=1,2"], "model.lr=1,2 has several values: add -m to run each, or type"),
    (
        ["trainer.fast_dev_run=true"],
        "does not list: type +trainer.fast_dev_run=true",
    ),
    (["+pruning=channel", "pruning.mac_target=0.4"], "Did you mean pruning.masker.mac_target?"),
    (["+pruning=channel", "+pruning.mac_target=0.4"], "did you mean pruning.masker.mac_t"),
    (["data.root=x"], f"data.root belongs to {' or '.join(WITH_ROOT)}: choose one"),
    (["callbacks=true"], "'callbacks' is chosen by name"),
    (["seed=${dense_epochs}", "dense_epochs=${seed}"], "Recursive interpolation"),
    (["ckpt_path=${nothing}"], "Interpolation key 'nothing' not found"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_refused_with_one_message(cli: Callable[..., Any], arguments: list[str], message: str):
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert "search path" not in outcome.err
    assert not (outcome.folder / "checkpoints").exists()


def test_full_error_shows_the_traceback(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    assert cli("seed=-1").code == 2
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match="seed=-1"):
        main(["seed=-1"])


def test_groups_of_the_search_path_are_known():
    assert {"pruning", "model", "data", "seed", "hydra"} <= top_level_keys()
    check_overrides(["+mine=x", "model/part=y", "data@other.data=z", "~logger"], ["mine"])


def test_all_unknown_keys_are_named_at_once():
    with pytest.raises(ConfigError, match=r"(?s)modle is not known.*dta is not known"):
        check_overrides(["modle.lr=1", "seed=1", "dta=x"])
