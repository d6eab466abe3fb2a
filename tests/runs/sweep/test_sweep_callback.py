"""Sweeps in one process and in several: one table at the end, whatever becomes of the jobs."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.runs.sweep.sweep_callback import SweepCallback
from tests.cli.conftest import FAKE

REPOSITORY = Path(__file__).resolve().parents[3]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> list[float]:
    results = [json.loads((folder / job / "result.json").read_text()) for job in ("0", "1")]
    return [result["metrics"]["test/map50_95"] for result in results]


def test_a_sweep_ends_with_one_table(cli: Callable[..., Any], tmp_path: Path):
    sweep = tmp_path / "sweep"
    words = ["dense_epochs=2", "model.lr=0.1,0.2", f"hydra.sweep.dir={sweep}"]
    outcome = cli("-m", *FAKE, *words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("The runs of this sweep") == 1
    assert outcome.out.index("the trained model") < outcome.out.index("The runs of this sweep")
    rows = table(sweep)
    assert [row["model.lr"] for row in rows] == ["0.1", "0.2"]
    assert [row["val/map50_95"] for row in rows] == ["2.0", "2.0"]
    assert [float(row["test/map50_95"]) for row in rows] == weights(sweep)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert "data" not in rows[0], "what all jobs share is no column"


def test_a_single_run_has_no_table(cli: Callable[..., Any]):
    outcome = cli(*FAKE, "dense_epochs=1")
    assert outcome.code == 0, outcome.err
    assert "The runs of this sweep" not in outcome.out
    assert (outcome.folder / "result.json").is_file()
    assert not (outcome.folder / "job.json").exists()


def test_tests_of_checkpoints_are_compared_too(cli: Callable[..., Any], tmp_path: Path):
    folders = [cli(*FAKE, f"dense_epochs={n}").folder for n in (1, 2)]
    paths = [str(folder / "checkpoints/last.ckpt") for folder in folders]
    sweep = tmp_path / "sweep"
    words = ["task=test", f"ckpt_path={','.join(paths)}", f"hydra.sweep.dir={sweep}"]
    assert cli("-m", *FAKE, *words).code == 0
    rows = table(sweep)
    assert [row["ckpt_path"] for row in rows] == paths
    trained = [json.loads((folder / "result.json").read_text()) for folder in folders]
    expected = [result["metrics"]["test/map50_95"] for result in trained]
    assert [float(row["test/map50_95"]) for row in rows] == expected


def test_a_refused_configuration_does_not_end_the_sweep(cli: Callable[..., Any], tmp_path: Path):
    sweep = tmp_path / "sweep"
    words = ["dense_epochs=1", "model.lr=-1,0.2", f"hydra.sweep.dir={sweep}"]
    outcome = cli("-m", *FAKE, *words)
    assert outcome.code == 2
    assert "job 0 failed: model: lr=-1 is not positive" in outcome.out
    assert "Traceback" not in outcome.out + outcome.err
    first, second = table(sweep)
    assert (first["status"], second["status"]) == ("failed", "ok")
    assert first["test/map50_95"] == ""
    assert first["reason"] == "model: lr=-1 is not positive: pass the peak learning rate"
    assert float(second["test/map50_95"]) > 0


def test_a_fault_keeps_its_traceback_and_the_others_run(cli: Callable[..., Any], tmp_path: Path):
    sweep = tmp_path / "sweep"
    words = ["dense_epochs=1", "model.lr=3e33,-1,0.2", f"hydra.sweep.dir={sweep}"]
    outcome = cli("-m", *FAKE, *words)
    assert outcome.code == 1, "not only configurations were refused"
    assert "in training_step" in (sweep / "0" / "train.log").read_text()
    assert [row["status"] for row in table(sweep)] == ["failed", "failed", "ok"]
    assert table(sweep)[0]["reason"].startswith("ValueError: the third step fails")


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_jobs_of_an_earlier_sweep_stay_out(cli: Callable[..., Any], tmp_path: Path):
    words = [*FAKE, "dense_epochs=1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    cli("-m", *words, "seed=0,1,2")
    # The second job fails: its folder still holds the earlier job's files.
    assert cli("-m", *words, "model.lr=0.2,-1").code == 2
    rows = table(tmp_path / "sweep")
    assert [row["job"] for row in rows] == ["0", "1"]
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert rows[1]["val/map50_95"] == ""


def test_an_output_folder_elsewhere_is_read(cli: Callable[..., Any], tmp_path: Path):
    words = ["dense_epochs=1", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    cli("-m", *FAKE, *words, f"output_dir={tmp_path}/else/${{seed}}")
    assert (tmp_path / "else/1/result.json").is_file()
    assert all(row["test/map50_95"] for row in table(tmp_path / "sweep"))


def test_an_interrupted_sweep_shows_what_it_has(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    end = SweepCallback.on_job_end

    def interrupt(self: SweepCallback, config: Any, job_return: Any, **kwargs: Any) -> None:
        if config.hydra.job.num == 1:
            raise KeyboardInterrupt
        end(self, config, job_return, **kwargs)

    monkeypatch.setattr(SweepCallback, "on_job_end", interrupt)
    words = ["dense_epochs=1", "seed=0,1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    outcome = cli("-m", *FAKE, *words)
    assert outcome.code == 128 + signal.SIGINT
    assert outcome.out.count("The runs of this sweep") == 1
    assert "Traceback" not in outcome.err
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["ok", "unfinished"]
    assert SweepCallback._open is None


def test_several_processes_at_once(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [*FAKE, "dense_epochs=1", "model.lr=0.1,3e33", "hydra/launcher=joblib"]
    command = [sys.executable, REPOSITORY / "train.py", "-m", *words, "hydra.launcher.n_jobs=2"]
    done = subprocess.run(
        [*command, f"hydra.sweep.dir={tmp_path}"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("The runs of this sweep") == 1
    assert [row["status"] for row in table(tmp_path)] == ["ok", "failed"]
    assert "Deprecat" not in done.stderr
    assert "in training_step" in (tmp_path / "1/train.log").read_text()


def stopper(folder: Path, step: int, signum: int = signal.SIGTERM) -> list[str]:
    return [
        "+callbacks.stopper._target_=tests.cli.stoppers.Stopper",
        f"+callbacks.stopper.step={step}",
        f"+callbacks.stopper.flag={folder / 'stopped'}",
        f"+callbacks.stopper.signum={int(signum)}",
    ]


def content(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["jobs"]
    return found


RESUMED = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


@RESUMED
def test_a_killed_sweep_is_taken_up_by_its_command(cli: Callable[..., Any], tmp_path: Path):
    """SIGKILL in the second of three jobs, two epochs in; folders by date and time."""
    words = ["-m", *FAKE, "dense_epochs=3", "model.lr=0.1,0.2,0.3", *stopper(tmp_path, 5, 9)]
    words = [word.replace(f"{tmp_path}/stopped", "stopped_${model.lr}") for word in words]
    for rate in ("0.1", "0.3"):
        (tmp_path / f"stopped_{rate}").touch()
    killed = subprocess.run(
        [sys.executable, REPOSITORY / "train.py", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (state,) = tmp_path.glob("multirun/*/*/sweep_state.json")
    folder = state.parent
    first = (folder / "0/result.json").stat().st_mtime_ns
    again = cli(*words)
    assert again.code == 0, again.err
    assert f"A sweep with the same overrides was interrupted: {folder}" in again.out
    assert "To start again instead, add resume=never." in again.out
    assert "job 0 is finished: it is not run again" in again.out
    assert f"continuing from {folder}/1/checkpoints/last.ckpt (step 4, epoch 1)" in again.out
    assert again.out.count("continuing from") == 1
    assert (folder / "0/result.json").stat().st_mtime_ns == first
    assert list(tmp_path.glob("multirun/*/*/sweep_state.json")) == [state]
    assert cli(*words, f"hydra.sweep.dir={tmp_path / 'whole'}").code == 0
    assert content(folder) == content(tmp_path / "whole")
    assert [row["status"] for row in content(folder)] == ["ok"] * 3


@RESUMED
def test_a_stopped_sweep_goes_on_in_the_given_folder(cli: Callable[..., Any], tmp_path: Path):
    words = ["-m", *FAKE, "dense_epochs=2", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    words += stopper(tmp_path, 2)
    stopped = cli(*words)
    assert stopped.code == 143
    assert "the same command continues with this sweep" in stopped.out
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["unfinished"]
    assert cli(*words).code == 0
    whole = [*words[:-5], f"hydra.sweep.dir={tmp_path / 'whole'}", *words[-4:]]
    assert cli(*whole).code == 0
    assert content(tmp_path / "sweep") == content(tmp_path / "whole")
    # Complete: nothing is left to be done, unless it is asked for.
    complete = cli(*words)
    assert complete.code == 0
    assert "is complete" in complete.out
    assert complete.out.count("is finished: it is not run again") == 2
    assert complete.out.count("The runs of this sweep") == 1
    (tmp_path / "stopped").unlink()
    again = cli(*words, "resume=never")
    assert again.code == 143
    assert "is resumed" not in again.out
    assert (tmp_path / "sweep/0/earlier_1/checkpoints/last.ckpt").is_file()


@RESUMED
def test_failed_jobs_run_again_from_the_start(cli: Callable[..., Any], tmp_path: Path):
    words = ["-m", *FAKE, "dense_epochs=2", "seed=0,1", "model.lr='${oc.decode:${oc.env:RATE}}'"]
    words += [f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATE", "3e33")
        assert cli(*words).code == 1
        assert [row["status"] for row in table(tmp_path / "sweep")] == ["failed", "failed"]
        patch.setenv("RATE", "0.1")
        outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    assert "continuing from" not in outcome.out
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["ok", "ok"]


def test_a_sweep_that_still_runs_is_left_alone(cli: Callable[..., Any], tmp_path: Path):
    words = ["-m", *FAKE, "dense_epochs=1", "seed=0,1"]
    assert cli(*words).code == 0
    (state,) = tmp_path.glob("multirun/*/*/sweep_state.json")
    path = state.parent / "1" / "job.json"
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        job = json.loads(path.read_text()) | {"status": "unfinished", "process": other.pid}
        path.write_text(json.dumps(job))
        state.write_text(json.dumps(json.loads(state.read_text()) | {"finished": False}))
        given = cli(*words, f"hydra.sweep.dir={state.parent}")
        assert given.code == 2
        assert f"still runs, in process {other.pid}" in given.err
        time.sleep(1.1)  # the name of a sweep's folder is the second in which it began
        assert f"still runs, in process {other.pid}: this is a new one" in cli(*words).out
    finally:
        other.kill()
        other.wait()
    assert len(list(tmp_path.glob("multirun/*/*/sweep_state.json"))) == 2
