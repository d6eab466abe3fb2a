"""The CSV file against rows written by hand."""

import csv
from pathlib import Path

import lightning as L
import torch
import yaml

from lightning_prune.runs.csv_logger import AppendingCsvLogger
from tests.cli.fakes import Line, Points


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_and_new_columns(tmp_path: Path):
    logger = AppendingCsvLogger(str(tmp_path / "deep" / "folder"))
    logger.log_metrics({"b": 1.5}, step=0)
    logger.log_metrics({"a": 2, "b": torch.tensor(0.25)}, step=3)
    assert rows(tmp_path / "deep" / "folder") == [
        {"step": "0", "a": "", "b": "1.5"},
        {"step": "3", "a": "2.0", "b": "0.25"},
    ]
    assert not list(tmp_path.rglob("*.part"))


def test_a_second_logger_appends(tmp_path: Path):
    AppendingCsvLogger(str(tmp_path)).log_metrics({"a": 1.0}, step=0)
    AppendingCsvLogger(str(tmp_path)).log_metrics({"a": 2.0}, step=1)
    AppendingCsvLogger(str(tmp_path)).log_metrics({"c": 3.0}, step=2)
    assert [row["a"] for row in rows(tmp_path)] == ["1.0", "2.0", ""]
    assert [row["c"] for row in rows(tmp_path)] == ["", "", "3.0"]


def test_hyper_parameters_are_plain_yaml(tmp_path: Path):
    logger = AppendingCsvLogger(str(tmp_path))
    logger.log_hyperparams({"lr": 0.1, "path": Path("x"), "names": ("a", "b")})
    logger.log_hyperparams({"size": "n"})
    assert yaml.safe_load((tmp_path / "hparams.yaml").read_text()) == {
        "lr": 0.1,
        "names": ["a", "b"],
        "path": "x",
        "size": "n",
    }


def test_history_survives_a_resumed_fit(tmp_path: Path):
    def trainer(epochs: int) -> L.Trainer:
        return L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=AppendingCsvLogger(str(tmp_path)),
            log_every_n_steps=1,
            default_root_dir=tmp_path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    first = trainer(1)
    first.fit(Line(), datamodule=Points())
    first.save_checkpoint(tmp_path / "one.ckpt")
    trainer(2).fit(
        Line(), datamodule=Points(), ckpt_path=str(tmp_path / "one.ckpt"), weights_only=True
    )
    steps = [int(row["step"]) for row in rows(tmp_path) if row["train/loss_step"]]
    assert steps == [0, 1, 2, 3]
    epochs = [float(row["val/map50_95"]) for row in rows(tmp_path) if row["val/map50_95"]]
    assert epochs == [1.0, 2.0]


def test_rows_are_taken_back_to_a_checkpoint(tmp_path):
    logger = AppendingCsvLogger(str(tmp_path))
    logger.log_metrics({"loss": 3.0}, 0)
    state = logger.state_dict()
    logger.log_metrics({"loss": 2.0, "map": 0.5}, 1)
    again = AppendingCsvLogger(str(tmp_path))
    assert again.state_dict() == {"rows": 2}
    assert again.load_state_dict(state)
    again.log_metrics({"loss": 1.0}, 1)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ["step,loss,map", "0,3.0,", "1,1.0,"]
    assert "0.5" in (tmp_path / "metrics.before_resume.csv").read_text()


def test_the_file_of_another_run_stays(tmp_path):
    logger = AppendingCsvLogger(str(tmp_path))
    logger.log_metrics({"loss": 3.0}, 0)
    assert not logger.load_state_dict({"rows": 7})
    assert logger.metrics_file.read_text() == "step,loss\n0,3.0\n"


def test_a_row_that_a_kill_cut_short_is_left_out(tmp_path):
    AppendingCsvLogger(str(tmp_path)).log_metrics({"loss": 3.0}, 0)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "1,2.")
    logger = AppendingCsvLogger(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, 1)
    assert path.read_text() == "step,loss\n0,3.0\n1,1.0\n"
