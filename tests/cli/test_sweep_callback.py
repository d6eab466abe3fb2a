"""Sweeps in one process and in several: one table at the end, whatever becomes of the jobs."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.cli.sweep_callback import SweepCallback
from tests.cli.conftest import FAKE

REPOSITORY = Path(__file__).resolve().parents[2]


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
    with pytest.raises(KeyboardInterrupt):
        cli("-m", *FAKE, *words)
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
