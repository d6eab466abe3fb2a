"""`resume=FOLDER`: the same folder, the same overrides, the same end."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_prune.errors import ConfigError
from lightning_prune.runs.resume.resume_command import finished_result, quote, resume_arguments
from tests.cli.conftest import FAKE, Outcome
from tests.cli.stoppers import WandbLogger
from tests.overrides import TINY, TINY_RECIPES, TINY_WARNINGS

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:PruningReport has no effect",  # the masker of the fake configuration masks nothing
)


def stopper(folder: Path, step: int, signum: int = 15) -> list[str]:
    return [
        "+callbacks.stopper._target_=tests.cli.stoppers.Stopper",
        f"+callbacks.stopper.step={step}",
        f"+callbacks.stopper.flag={quote(folder / 'stopped')}",
        f"+callbacks.stopper.signum={signum}",
    ]


def end_of(folder: Path) -> dict[str, Any]:
    """What a run came to, without where it lies."""
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    return {
        "state": {name: value.tolist() for name, value in last["state_dict"].items()},
        "step": last["global_step"],
        "result": json.loads((folder / "result.json").read_text()),
        "rows": rows,
    }


def test_a_stopped_run_goes_on_to_the_same_end(
    cli: Callable[..., Outcome], again: Callable[..., Outcome], tmp_path: Path
):
    whole = cli(*FAKE, "dense_epochs=4", "model.lr=0.2")
    part = cli(*FAKE, "dense_epochs=4", "model.lr=0.2", *stopper(tmp_path, 4))
    assert part.code == 143
    assert "SIGTERM: stopped after step 4 (epoch 3), saved to" in part.out
    assert "continue with: python train.py resume=run1" in part.out
    assert not (part.folder / "result.json").exists()

    resumed = again("resume=run1")
    assert resumed.code == 0, resumed.err
    assert f"continuing from {part.folder}/checkpoints/last.ckpt (step 4, epoch 2)" in resumed.out
    assert "changed since then" not in resumed.out
    assert "epoch 2/4" not in resumed.out
    assert "epoch 4/4" in resumed.out
    assert end_of(part.folder) == end_of(whole.folder)

    finished = again("resume=run1")
    assert finished.code == 0
    value = json.loads((part.folder / "result.json").read_text())["value"]
    assert f"this run is finished: val/map50_95 {value:.4f}" in finished.out
    assert "epoch" not in finished.out.split("such as")[0]


def test_a_finished_run_goes_on_where_more_is_asked_for(
    cli: Callable[..., Outcome], again: Callable[..., Outcome]
):
    whole, part = (cli(*FAKE, f"dense_epochs={n}") for n in (3, 2))
    more = again("resume=run1", "dense_epochs=3")
    assert more.code == 0, more.err
    assert "changed since then: dense_epochs: 2 -> 3" in more.out
    assert "changed since then: trainer.max_epochs: 2 -> 3" in more.out
    for key in ("state", "step", "result"):
        assert end_of(part.folder)[key] == end_of(whole.folder)[key]
    # What was added stays.
    assert "dense_epochs=3" in yaml.safe_load((part.folder / ".hydra/overrides.yaml").read_text())


def test_an_end_between_training_and_result_loses_nothing(
    cli: Callable[..., Outcome], again: Callable[..., Outcome], tmp_path: Path
):
    words = [*FAKE[:-1], "callbacks.ema.decay=0.9", "+pruning=keeper", "dense_epochs=1"]
    words += ["recovery_epochs=2"]
    whole = cli(*words)
    part = cli(*words, *stopper(tmp_path, 0))  # in the test
    assert part.code == 143
    assert "continue with: python train.py resume=run1" in part.out
    assert not (part.folder / "result.json").exists()
    resumed = again("resume=run1")
    assert resumed.code == 0, resumed.err
    assert end_of(part.folder)["result"] == end_of(whole.folder)["result"]
    reports = [
        json.loads((run.folder / "pruning_report.json").read_text()) for run in (whole, part)
    ]
    assert reports[0] == reports[1]


def test_a_torn_checkpoint_is_named_and_skipped(
    cli: Callable[..., Outcome], again: Callable[..., Outcome], tmp_path: Path
):
    whole = cli(*FAKE, "callbacks=every_epoch", "dense_epochs=3")
    part = cli(*FAKE, "callbacks=every_epoch", "dense_epochs=3", *stopper(tmp_path, 4))
    last = part.folder / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-400])
    resumed = again("resume=run1/")
    assert resumed.code == 0, resumed.err
    assert f"{last} is passed over: " in resumed.out
    assert "epoch_001.ckpt (step 4, epoch 1)" in resumed.out
    assert end_of(part.folder)["result"] == end_of(whole.folder)["result"]


def test_without_a_checkpoint_the_run_starts_over(
    cli: Callable[..., Outcome], again: Callable[..., Outcome]
):
    run = cli(*FAKE, "dense_epochs=2")
    first = end_of(run.folder)
    (run.folder / "result.json").unlink()
    for path in (run.folder / "checkpoints").glob("*.ckpt"):
        path.write_bytes(b"torn")
    resumed = again("resume=run0")
    assert resumed.code == 0, resumed.err
    assert "no intact checkpoint in" in resumed.out
    assert end_of(run.folder) == first
    assert (run.folder / "earlier_1/checkpoints/last.ckpt").read_bytes() == b"torn"


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("name", ["with space", "lr=0.1", "it's, (a) [name]"])
def test_any_folder_name(
    cli: Callable[..., Outcome], again: Callable[..., Outcome], tmp_path: Path, name: str
):
    part = cli(*FAKE, "dense_epochs=2", *stopper(tmp_path, 2))
    assert part.code == 143
    folder = shutil.move(part.folder, tmp_path / name)
    resumed = again(f"resume={name}")
    assert resumed.code == 0, resumed.err
    assert end_of(folder)["step"] == 4


def test_weights_are_neither_read_nor_tested_again(
    cli: Callable[..., Outcome], again: Callable[..., Outcome], tmp_path: Path
):
    words = [*FAKE, "+pruning=keeper", "model.weights='1.5'", "recovery_epochs=2"]
    part = cli(*words, *stopper(tmp_path, 2))
    assert part.code == 143
    assert "the weights as they came" in part.out
    # As if the file were gone: reading it would fail.
    command = part.folder / "command.json"
    command.write_text(command.read_text().replace("1.5", "gone"))
    # A kill while Hydra writes its files again leaves them empty.
    for path in (part.folder / ".hydra").iterdir():
        path.write_text("")
    # What was changed by hand was not recorded by its user.
    resumed = again("resume=run0")
    assert resumed.code == 2
    assert "add trust=true" in resumed.err
    resumed = again("resume=run0", "trust=true")
    assert resumed.code == 0, resumed.err
    assert "the weights as they came" not in resumed.out
    assert "epoch 2/2" in resumed.out
    report = json.loads((part.folder / "pruning_report.json").read_text())
    assert report["dense"]["metrics"]["test/map50_95"] == 1.5


def test_a_wandb_run_keeps_its_identity(
    cli: Callable[..., Outcome], again: Callable[..., Outcome], tmp_path: Path
):
    words = ["logger=wandb", "logger.wandb._target_=tests.cli.stoppers.WandbLogger"]
    part = cli(*FAKE, *words, "dense_epochs=2", *stopper(tmp_path, 2))
    assert part.code == 143, part.err
    resumed = again("resume=run0")
    assert resumed.code == 0, resumed.err
    other = cli(*FAKE, *words, "dense_epochs=1")
    assert other.code == 0
    first, second, third = WandbLogger.made[-3:]
    assert first == second
    assert first["resume"] == "allow"
    assert len(first["id"]) == 8
    assert third["id"] != first["id"]
    assert "changed since then" not in resumed.out


def test_what_contradicts_is_refused(again: Callable[..., Outcome], cli: Callable[..., Outcome]):
    sweep = ["-m", *FAKE, "dense_epochs=1", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert cli(*sweep).code == 0
    for words, message in {
        ("resume=nowhere",): "is no folder of a run: give the folder that has .hydra",
        ("resume=sweep",): "it is a sweep: give the sweep's own command again",
        ("resume=sweep/0", "ckpt_path=x.ckpt"): "resume and ckpt_path contradict each other",
        ("resume=sweep/0", "-m", "seed=1,2"): "resume=sweep/0 continues one run",
    }.items():
        outcome = again(*words)
        assert outcome.code == 2
        assert message in outcome.err
        assert "Traceback" not in outcome.err
    assert "this run is finished" in again("resume=sweep/1").out


def run_folder(folder: Path, task: list[str], hydra: list[str], config_dir: str = "") -> Path:
    sources = [{"path": "/conf", "provider": "main"}]
    sources += [{"path": config_dir, "provider": "command-line"}] if config_dir else []
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(task))
    runtime = {"cwd": str(Path.cwd()), "config_sources": sources}
    content = {"hydra": {"overrides": {"hydra": hydra, "task": task}, "runtime": runtime}}
    (folder / ".hydra/hydra.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_the_command_line_of_a_run(tmp_path: Path):
    task = ["+pruning=channel", "seed=1", "model.lr=0.1", "resume=x", "ckpt_path=a.ckpt", "+a.b=1"]
    hydra = ["hydra.run.dir=old", "hydra.mode=MULTIRUN", "hydra/launcher=joblib"]
    hydra += ["hydra.launcher.n_jobs=2", "hydra.searchpath=[pkg://mine]", "hydra.sweep.dir=x"]
    folder = run_folder(tmp_path / "a", task, hydra, "/mine")
    place = ["hydra.mode=RUN", f"hydra.run.dir='{folder}'", f"resume='{folder}'"]
    kept = ["hydra.searchpath=[pkg://mine]", "+pruning=channel", "seed=1", "model.lr=0.1"]
    found = resume_arguments([f"resume={folder}", "trust=true"])
    assert found == ["--config-dir", "/mine", *kept, "ckpt_path=a.ckpt", "+a.b=1", *place]
    # New words win: for groups too, with the sign that the run had.
    found = resume_arguments(
        ["seed=2", f"resume='{folder}'", "trust=true", "pruning=slice", "~a.b", "-cd", "b"]
    )
    rest = ["hydra.searchpath=[pkg://mine]", "model.lr=0.1", "ckpt_path=a.ckpt"]
    assert found == [*rest, "seed=2", "+pruning=slice", "-cd", "b", *place]
    # A second process of the same run, started with the whole line.
    assert resume_arguments(found) == found
    for words in ([], ["seed=1"], ["resume=never", "-m"], ["resume=null"]):
        assert resume_arguments(words) == words


def test_a_damaged_run_folder_is_refused(tmp_path: Path):
    folder = run_folder(tmp_path / "a", [], [])
    (folder / ".hydra/hydra.yaml").write_text("hydra: [")
    for text in ("hydra: [", "", "hydra: {}"):
        (folder / ".hydra/hydra.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"hydra\.yaml cannot be read"):
            resume_arguments([f"resume={folder}"])
    (folder / "result.json").write_text("{")
    assert finished_result([f"resume={folder}"]) is None


@pytest.mark.slow
@pytest.mark.filterwarnings(*TINY_WARNINGS)
def test_a_pruned_detector_ends_the_same(
    cli: Callable[..., Outcome], again: Callable[..., Outcome], tmp_path: Path
):
    """Stopped in the middle of the masked epoch."""
    words = [*TINY, "+pruning=sequential_activation", *TINY_RECIPES["sequential_activation"]]
    words += ["pruning.report.latency_rounds=0", "pruning.report.figures=false"]
    words += ["trainer.log_every_n_steps=1"]
    whole = cli(*words)
    part = cli(*words, *stopper(tmp_path, 3))
    assert part.code == 143, part.err
    resumed = again("resume=run1")
    assert resumed.code == 0, resumed.err
    assert end_of(part.folder) == end_of(whole.folder)
    reports = [
        json.loads((run.folder / "pruning_report.json").read_text()) for run in (whole, part)
    ]
    assert reports[0] == reports[1]
