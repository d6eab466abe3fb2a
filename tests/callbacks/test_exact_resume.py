"""What the contract suite does not reach: other numbers of processes, and what a file holds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.cli.csv_logger import AppendingCsvLogger
from tests.callbacks.classifiers import Classifier, trainer


def run(folder: Path, ckpt: Path | None = None, **options: Any) -> Any:
    files = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
    fitter = trainer(folder, [ExactResume(), files], 2, enable_checkpointing=True, **options)
    fitter.fit(Classifier(), ckpt_path=ckpt, weights_only=True)
    return fitter


def test_every_process_has_its_own_random_states(tmp_path: Path) -> None:
    run(tmp_path)
    content = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    kept = content["exact_resume"]
    assert len(kept["processes"]) == 1
    assert kept["loggers"] == []
    kept["processes"] *= 2
    torch.save(content, tmp_path / "two.ckpt")
    with (
        pytest.warns(UserWarning, match="written by 2 processes and is resumed by 1"),
        pytest.warns(UserWarning, match="your dataloader is not resumable"),
        pytest.warns(UserWarning, match="The dirpath has changed"),
    ):
        run(tmp_path / "again", tmp_path / "two.ckpt")


def test_files_for_testing_need_nothing_of_it(tmp_path: Path) -> None:
    fitter = run(tmp_path)
    path = tmp_path / "step=8.ckpt"
    content = torch.load(path, weights_only=True)
    del content["exact_resume"]
    torch.save(content, path)
    assert fitter.test(Classifier(), ckpt_path=path, verbose=False, weights_only=True)


def test_rows_after_the_checkpoint_are_taken_back_and_kept_aside(tmp_path: Path) -> None:
    options = {"log_every_n_steps": 1}
    run(tmp_path, logger=AppendingCsvLogger(str(tmp_path)), **options)
    whole = (tmp_path / "metrics.csv").read_text()
    logger = AppendingCsvLogger(str(tmp_path))
    with (
        pytest.warns(UserWarning, match="your dataloader is not resumable"),
        pytest.warns(UserWarning, match="exists and is not empty"),
    ):
        run(tmp_path, tmp_path / "step=8.ckpt", logger=logger, **options)
    assert (tmp_path / "metrics.before_resume.csv").read_text() == whole
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == len(whole.splitlines())
