"""The flow of a run with a model of one weight: what is called, written, returned and resumed."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_prune.cli.train import main, run
from lightning_prune.cli.training import fill_from_data, plan_epochs
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder
from tests.cli.conftest import CONF, FAKE
from tests.cli.fakes import Line, Points

REPOSITORY = Path(__file__).resolve().parents[2]
# The stage of the fake configuration keeps a dense checkpoint and prunes nothing.
NOTHING_PRUNED = pytest.mark.filterwarnings("ignore:PruningReport has no effect")


def composed(folder: Path, *overrides: str) -> Any:
    words = [*FAKE[2:], f"output_dir={folder}", f"hydra.searchpath=[file://{CONF}]", *overrides]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", overrides=words)


def test_a_plain_run_leaves_everything_in_one_folder(cli: Callable[..., Any]):
    outcome = cli(*FAKE, "dense_epochs=3")
    assert outcome.code == 0, outcome.err
    assert "epoch 3/3" in outcome.out
    assert f"everything of this run is in {outcome.folder}" in outcome.out
    names = {path.name for path in outcome.folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.csv", "hparams.yaml", "best.ckpt", "last.ckpt"} <= names
    cfg = OmegaConf.load(outcome.folder / "config.yaml")
    assert cfg.trainer.max_epochs == 3
    assert cfg.model.num_classes == 1
    assert cfg.model.names == ["line"]
    last = torch.load(outcome.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    with (outcome.folder / "metrics.csv").open() as file:
        tested = [row["test/map50_95"] for row in csv.DictReader(file) if row["test/map50_95"]]
    assert tested == [str(float(last["state_dict"]["w"]))]


def test_the_monitored_metric_is_returned(tmp_path: Path):
    assert run(composed(tmp_path / "a", "dense_epochs=2", "logger=none")) == 2.0
    assert run(composed(tmp_path / "b", "dense_epochs=1", "logger=none", "monitor=train/loss")) > 0


def test_the_same_seed_gives_the_same_run(tmp_path: Path):
    for name in ("a", "b"):
        run(composed(tmp_path / name, "dense_epochs=2"))
    first, second = ((tmp_path / name / "metrics.csv").read_text() for name in ("a", "b"))
    assert first == second


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resume_equals_one_run(tmp_path: Path):
    run(composed(tmp_path / "once", "dense_epochs=4"))
    run(composed(tmp_path / "part", "dense_epochs=2"))
    half = (tmp_path / "part" / "checkpoints" / "last.ckpt").rename(tmp_path / "half.ckpt")
    run(composed(tmp_path / "part", "dense_epochs=4", f"ckpt_path={half}"))
    weights, epochs = [], []
    for folder in (tmp_path / "once", tmp_path / "part"):
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append(checkpoint["state_dict"]["w"])
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        epochs.append([row["val/map50_95"] for row in rows if row["val/map50_95"]])
    assert torch.equal(weights[0], weights[1])
    assert epochs == [["1.0", "2.0", "3.0", "4.0"]] * 2


def test_task_test_loads_by_the_class_of_the_model(cli: Callable[..., Any]):
    trained = cli(*FAKE, "dense_epochs=2")
    path = trained.folder / "checkpoints" / "last.ckpt"
    tested = cli(*FAKE, "task=test", f"ckpt_path={path}")
    assert tested.code == 0, tested.err
    w = Line.load_from_checkpoint(path, weights_only=True).w
    assert f"{path}: test/map50_95 {w.item():.4f}" in tested.out


def test_a_folder_of_a_run_can_be_tested(cli: Callable[..., Any]):
    trained = cli(*FAKE, "dense_epochs=2", "callbacks.progress=null")
    assert "\r" not in trained.out + trained.err
    tested = cli(*FAKE, "task=test", f"ckpt_path={trained.folder}")
    assert tested.code == 0, tested.err
    best = trained.folder / "checkpoints" / "best.ckpt"
    assert f"{best} is taken" in tested.err
    w = Line.load_from_checkpoint(best, weights_only=True).w
    assert f"{best}: test/map50_95 {w.item():.4f}" in tested.out
    refused = cli(*FAKE, f"ckpt_path={trained.folder}")
    assert refused.code == 2
    assert f"give resume={trained.folder}" in refused.err


def test_the_log_holds_what_the_terminal_said(cli: Callable[..., Any]):
    outcome = cli(*FAKE, "dense_epochs=2")
    log = (outcome.folder / "train.log").read_text()
    assert "epoch 2/2  train/loss" in log
    assert "model     Line, 1 class (line), 1 parameters\n" in log
    assert "data      Points, 8 samples to train on, in 2 batches an epoch" in log
    assert re.search(r"^machine   cpu, 32 bits, \d+ threads?, seed 0$", log, re.MULTILINE)
    assert f"output    {outcome.folder.relative_to(Path.cwd())}\n" in log
    assert "Tip:" not in log
    assert log.rstrip().endswith(f"everything of this run is in {outcome.folder}")
    for line in outcome.out.splitlines():
        assert line.rstrip() in log
    refused = cli(*FAKE, "model.lr=-1")
    assert refused.code == 2
    assert (refused.folder / "train.log").read_text() == f"{refused.err.splitlines()[1]}\n"


def test_a_folder_that_cannot_be_written_is_known_before_training(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    outcome = cli(*FAKE, f"output_dir={tmp_path / 'file'}")
    assert outcome.code == 2
    assert "cannot be made (File exists): choose another folder" in outcome.err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit, match="2"):
        main([*FAKE, f"hydra.run.dir={tmp_path / 'file' / 'run'}"])


def test_multirun_runs_every_job(cli: Callable[..., Any], tmp_path: Path):
    sweep = tmp_path / "sweep"
    outcome = cli("-m", *FAKE, "dense_epochs=1", "model.lr=0.1,0.2", f"hydra.sweep.dir={sweep}")
    assert outcome.code == 0, outcome.err
    rates = [OmegaConf.load(sweep / job / "config.yaml").model.lr for job in ("0", "1")]
    assert rates == [0.1, 0.2]


@NOTHING_PRUNED
def test_a_pruning_run_reports_dense_and_pruned(cli: Callable[..., Any]):
    outcome = cli(*FAKE, "+pruning=keeper", "dense_epochs=1", "recovery_epochs=2")
    assert outcome.code == 0, outcome.err
    assert "epoch 3/3" in outcome.out
    report = json.loads((outcome.folder / "pruning_report.json").read_text())
    paths = [outcome.folder / "checkpoints" / f"{name}.ckpt" for name in ("dense", "last")]
    expected = [float(torch.load(p, weights_only=True)["state_dict"]["w"]) for p in paths]
    assert report["dense"]["metrics"]["test/map50_95"] == pytest.approx(expected[0])
    assert report["pruned"]["metrics"]["test/map50_95"] == pytest.approx(expected[1])
    assert expected[0] != expected[1]


@NOTHING_PRUNED
def test_a_trained_model_starts_at_pruning(cli: Callable[..., Any]):
    outcome = cli(*FAKE, "+pruning=keeper", "model.weights='1.5'", "recovery_epochs=1")
    assert outcome.code == 0, outcome.err
    assert "pruning starts at once (dense_epochs=0)" in outcome.out
    assert "the weights as they came: test/map50_95 1.5000" in outcome.out
    assert "epoch 1/1" in outcome.out
    report = json.loads((outcome.folder / "pruning_report.json").read_text())
    assert report["dense"]["metrics"]["test/map50_95"] == 1.5


@NOTHING_PRUNED
def test_dense_epochs_that_were_asked_for_stay(cli: Callable[..., Any]):
    words = ["model.weights='1.5'", "dense_epochs=1", "recovery_epochs=1"]
    outcome = cli(*FAKE, "+pruning=keeper", *words)
    assert outcome.code == 0, outcome.err
    assert "pruning starts at once" not in outcome.out
    assert "epoch 2/2" in outcome.out


def test_epochs_are_planned(tmp_path: Path):
    def planned(*overrides: str, pretrained: bool = False) -> tuple[int, int]:
        cfg = composed(tmp_path, "dense_epochs=5", "recovery_epochs=3", *overrides)
        plan_epochs(cfg, pretrained)
        return cfg.dense_epochs, cfg.trainer.max_epochs

    assert planned() == (5, 5)
    assert planned(pretrained=True) == (5, 5)
    assert planned("+pruning=keeper") == (5, 8)
    assert planned("+pruning=keeper", pretrained=True) == (0, 3)
    assert planned("+pruning=keeper", "trainer.max_epochs=6") == (5, 6)
    assert planned("trainer.max_epochs=2") == (5, 2)
    # A recipe without recovery only regularizes: a model that comes trained, too.
    assert planned("+pruning=keeper", "recovery_epochs=0", pretrained=True) == (5, 5)
    assert planned("+pruning=keeper", "recovery_epochs=0", "trainer.max_epochs=2") == (5, 2)
    with pytest.raises(ConfigError, match=r"max_epochs=5 ends before pruning starts"):
        planned("+pruning=keeper", "trainer.max_epochs=5")


def test_values_given_by_hand_are_not_filled(tmp_path: Path):
    cfg = composed(tmp_path, "model.num_classes=7")
    fill_from_data(cfg, Points(names=["a", "b"]))
    assert cfg.model.num_classes == 7
    assert cfg.model.names == ["a", "b"]
    assert cfg.model.weights is None


def test_train_py_is_the_same_command():
    words = [sys.executable, "train.py", "--cfg", "job", "--package", "model", "seed=7"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "_target_: lightning_prune.detection.module.DetectionModule" in done.stdout


def test_what_a_stage_refuses_before_training_is_one_message(cli: Callable[..., Any]):
    words = ["pruning.keeper.start_epoch=9", "dense_epochs=1", "recovery_epochs=1"]
    outcome = cli(*FAKE, "+pruning=keeper", *words)
    assert outcome.code == 2
    assert "start_epoch=9 comes after the last epoch" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_fault_in_training_keeps_its_traceback(cli: Callable[..., Any]):
    with pytest.raises(ValueError, match="the third step fails"):
        cli(*FAKE, "model.lr=3e33")
