"""What the contract suite does not reach: other numbers of processes, and what a file holds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.runs.csv_logger import AppendingCsvLogger
from lightning_prune.runs.resume.exact_resume import ExactResume
from tests.callbacks.classifiers import Classifier, trainer
from tests.contract.runs import differences


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


def test_a_run_that_is_complete_takes_back_the_rows_of_its_test(tmp_path: Path) -> None:
    def fit(ckpt: Path | None = None) -> str:
        files = ModelCheckpoint(
            tmp_path, "end", save_on_train_epoch_end=True, enable_version_counter=False
        )
        logger = AppendingCsvLogger(str(tmp_path))
        fitter = trainer(
            tmp_path, [ExactResume(), files], 1, enable_checkpointing=True, logger=logger
        )
        model = Classifier()
        fitter.fit(model, ckpt_path=ckpt, weights_only=True)
        fitter.test(model, verbose=False)
        return (tmp_path / "metrics.csv").read_text()

    whole = fit()
    assert "test/accuracy" in whole
    with pytest.warns(UserWarning, match="exists and is not empty"):
        assert fit(tmp_path / "end.ckpt") == whole


class Killed(Exception):
    """The process is gone."""


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_kill_between_two_files_of_one_moment(
    epoch: int, validated: bool, tmp_path: Path
) -> None:
    def fit(folder: Path, dies: bool = False, ckpt: Path | None = None) -> dict[str, Any]:
        own: dict[str, Any] = {
            "save_on_train_epoch_end": not validated, "enable_version_counter": False,
        }  # fmt: skip
        first = ModelCheckpoint(folder, "first", every_n_epochs=1, **own)
        second = ModelCheckpoint(folder, "second", monitor="val/accuracy", mode="min", **own)
        third = ModelCheckpoint(folder, "third", every_n_epochs=2, **own)

        class Dies(ModelCheckpoint):
            def die(self, trainer: Any, *_: Any) -> None:
                if dies and trainer.current_epoch == epoch and not trainer.sanity_checking:
                    raise Killed

            if validated:
                on_validation_end = die
            else:
                on_train_epoch_end = die

        callbacks = [ExactResume(), first, Dies(save_top_k=0), second, third]
        fitter = trainer(folder, callbacks, 3, enable_checkpointing=True)
        fitter.fit(Classifier(), ckpt_path=ckpt, weights_only=True)
        states = [third.state_dict(), second.state_dict()]
        files = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.ckpt")}
        return {
            "paths": [[Path(s["best_model_path"]).name, s["best_model_score"]] for s in states],
            "files": {
                name: [content["state_dict"], content["optimizer_states"], content["global_step"]]
                for name, content in files.items()
            },
        }

    expected = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "run", dies=True)
    with pytest.warns(UserWarning, match="exists and is not empty"):
        found = fit(tmp_path / "run", ckpt=tmp_path / "run" / "first.ckpt")
    assert differences(expected, found) == []
