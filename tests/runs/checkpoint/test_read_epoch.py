"""The epoch of a checkpoint, as a whole reading gives it."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.runs.checkpoint import read_epoch as module
from lightning_prune.runs.checkpoint.read_epoch import read_epoch


@pytest.fixture
def never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the file was read whole")

    monkeypatch.setattr(module, "read_checkpoint", refuse)


@pytest.mark.usefixtures("never_whole")
def test_lightnings_files_tell_it_first(tmp_path: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=2, limit_train_batches=1, limit_val_batches=0, logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(BoringModel())
    (path,) = tmp_path.rglob("*.ckpt")
    assert read_epoch(path) == torch.load(path, weights_only=True)["epoch"] == 1


@pytest.mark.usefixtures("never_whole")
@pytest.mark.parametrize("epoch", [0, 255, 256, 65536, 2**31 - 1])
@pytest.mark.parametrize("protocol", [2, 4])
def test_any_number(tmp_path: Path, epoch: int, protocol: int) -> None:
    torch.save({"epoch": epoch, "b": torch.ones(2)}, tmp_path / "x", pickle_protocol=protocol)
    assert read_epoch(tmp_path / "x") == epoch


@pytest.mark.parametrize(
    "content", [{"state": {"epoch": 5}, "epoch": 3}, {"epochs": 5, "epoch": 3}, {"epoch": 3.0}]
)
def test_other_beginnings_are_read_whole(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "x")
    assert read_epoch(tmp_path / "x") == 3


def test_without_an_epoch(tmp_path: Path) -> None:
    torch.save({"state": {"epoch": 5}}, tmp_path / "x")
    with pytest.raises(KeyError):
        read_epoch(tmp_path / "x")


def test_torn_or_not_there(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "b": torch.ones(100)}, tmp_path / "x")
    (tmp_path / "y").write_bytes((tmp_path / "x").read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged or torn"):
        read_epoch(tmp_path / "y")
    with pytest.raises(FileNotFoundError):
        read_epoch(tmp_path / "z")
