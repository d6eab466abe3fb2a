"""A run that was moved, copied or tidied up still knows its best files and their scores."""

import functools
import shutil
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_prune.runs.resume.exact_resume import ExactResume
from tests.callbacks.classifiers import Classifier, trainer

SCORES = [0.1, 0.9, 0.7, 0.8, 0.4, 0.5]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:`training_step` returned `None`"),
]


class Scored(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if batch_idx == 0 else None

    def on_train_epoch_end(self) -> None:
        self.log("score", SCORES[self.current_epoch])


def fit(folder: Path, epochs: int, ckpt: Path | None = None, top: int = 2) -> ModelCheckpoint:
    best = ModelCheckpoint(folder / "best", "{epoch}", monitor="score", mode="max", save_top_k=top)
    last = ModelCheckpoint(folder, "last", enable_version_counter=False)
    options = {"enable_checkpointing": True, "limit_train_batches": 1, "limit_val_batches": 0}
    run = trainer(folder, [best, last, ExactResume()], epochs, **options)
    run.fit(Scored(), ckpt_path=ckpt, weights_only=True)
    return best


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "best").iterdir())


def test_a_copied_and_a_moved_folder_keep_the_best_of_all_epochs(tmp_path: Path) -> None:
    fit(tmp_path / "run", 3)
    assert names(tmp_path / "run") == ["epoch=1.ckpt", "epoch=2.ckpt"]
    shutil.copytree(tmp_path / "run", tmp_path / "deep" / "copy")
    found = [fit(tmp_path / "run", 6, tmp_path / "run/last.ckpt")]
    shutil.rmtree(tmp_path / "run")
    found.append(fit(tmp_path / "deep/copy", 6, tmp_path / "deep/copy/last.ckpt"))
    for best in found:
        assert best.dirpath is not None
        folder = Path(best.dirpath)
        assert best.best_model_path == str(folder / "epoch=1.ckpt")
        assert float(best.best_model_score) == pytest.approx(0.9)
        kept = {name: round(float(score), 3) for name, score in best.best_k_models.items()}
        assert kept == {str(folder / "epoch=1.ckpt"): 0.9, str(folder / "epoch=3.ckpt"): 0.8}
        assert best.kth_best_model_path == str(folder / "epoch=3.ckpt")
    assert names(tmp_path / "deep" / "copy") == ["epoch=1.ckpt", "epoch=3.ckpt"]


def test_a_file_that_is_gone_makes_room_for_the_next_best(tmp_path: Path) -> None:
    fit(tmp_path, 3)
    (tmp_path / "best" / "epoch=1.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"epoch=1\.ckpt: not there any more"):
        best = fit(tmp_path, 6, tmp_path / "last.ckpt")
    assert Path(best.best_model_path).name == "epoch=3.ckpt"
    assert float(best.best_model_score) == pytest.approx(0.8)
    assert names(tmp_path) == ["epoch=2.ckpt", "epoch=3.ckpt"]


def test_a_new_run_from_a_file_of_another_begins_its_own_list(tmp_path: Path) -> None:
    fit(tmp_path / "run", 3)
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        best = fit(tmp_path / "new", 6, tmp_path / "run" / "last.ckpt")
    assert {Path(path).parent.parent for path in best.best_k_models} == {tmp_path / "new"}
    assert float(best.best_model_score) == pytest.approx(0.8)
    assert names(tmp_path / "run") == ["epoch=1.ckpt", "epoch=2.ckpt"]


def test_a_folder_copied_before_the_first_pruned_file_warns_of_nothing(tmp_path: Path) -> None:
    def fit_dense(folder: Path, epochs: int, ckpt: Path | None = None) -> PrunedCheckpoint:
        last = ModelCheckpoint(folder, "last", enable_version_counter=False)
        files = [PrunedCheckpoint(str(folder), monitor="score"), last]
        options = {"enable_checkpointing": True, "limit_train_batches": 1, "limit_val_batches": 0}
        run = trainer(folder, [*files, ExactResume()], epochs, **options)
        run.fit(Scored(), ckpt_path=ckpt, weights_only=True)
        return files[0]

    fit_dense(tmp_path / "run", 2)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The dirpath has changed")
        found = fit_dense(tmp_path / "copy", 3, tmp_path / "copy/last.ckpt")
    assert found.dirpath == str(tmp_path / "copy")


def test_the_best_pruned_file_is_found_without_exact_resume(tmp_path: Path) -> None:
    def run(folder: Path, epochs: int, ckpt: Path | None = None) -> PrunedCheckpoint:
        best = PrunedCheckpoint(str(folder), monitor="score")
        best.pruned = True
        last = ModelCheckpoint(folder, "last", enable_version_counter=False)
        options: dict[str, Any] = {"plugins": [AtomicCheckpointIO()], "enable_checkpointing": True}
        options |= {"limit_train_batches": 1, "limit_val_batches": 0}
        trainer(folder, [best, last], epochs, **options).fit(Scored(), ckpt_path=ckpt)
        return best

    run(tmp_path / "run", 3)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    best = run(tmp_path / "moved", 6, tmp_path / "moved" / "last.ckpt")
    assert best.best_model_path == str(tmp_path / "moved" / "best_pruned.ckpt")
    assert torch.load(best.best_model_path, weights_only=True)["epoch"] == 1


def test_what_a_checkpoint_cannot_hold_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    class Holds(Scored):
        def __init__(self, loss: Any = None) -> None:
            super().__init__()
            self.save_hyperparameters()

    def run(*plugins: Any) -> pl.Trainer:
        fitter = trainer(tmp_path, [ExactResume()], 1, plugins=list(plugins), limit_val_batches=0)
        fitter.fit(Holds(functools.partial(print)))
        return fitter

    with pytest.raises(ValueError, match=r"hyper_parameters\.loss \(partial\).*ignore=\['loss'\]"):
        run(AtomicCheckpointIO())
    with pytest.warns(UserWarning, match=r"hyper_parameters\.loss as pickled objects"):
        assert run().global_step > 0
