import datetime
from pathlib import Path

import pytest
import torch

from lightning_prune.detection.module import DetectionModule
from lightning_prune.files.checkpoint_error import CheckpointError
from tests.callbacks.classifiers import trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    module = DetectionModule(num_classes=2)
    fit = trainer(folder, [], 1)
    fit.strategy.connect(module)
    fit.save_checkpoint(folder / "a.ckpt")
    return folder / "a.ckpt"


def test_it_loads_what_was_saved(checkpoint: Path):
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    for found in (
        DetectionModule.load_from_checkpoint(checkpoint),
        DetectionModule.load_from_checkpoint(str(checkpoint), "cpu", None, True),
        DetectionModule.load_from_checkpoint(checkpoint, weights_only=False),
    ):
        assert found.hparams.num_classes == 2
        own = found.state_dict()
        assert all(torch.equal(own[name], value) for name, value in state.items())
    with checkpoint.open("rb") as file:
        assert DetectionModule.load_from_checkpoint(file).hparams.num_classes == 2


def test_other_files_are_named(checkpoint: Path, tmp_path: Path):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"when": datetime.timedelta(3)}, tmp_path / "objects.ckpt")
    with pytest.raises(
        CheckpointError, match=r"objects \(datetime.timedelta\).*weights_only=False"
    ):
        DetectionModule.load_from_checkpoint(tmp_path / "objects.ckpt")
    assert DetectionModule.load_from_checkpoint(tmp_path / "objects.ckpt", weights_only=False)
    path = tmp_path / "pointer.ckpt"
    path.write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer to 9 bytes, not a checkpoint"):
        DetectionModule.load_from_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        DetectionModule.load_from_checkpoint(tmp_path / "absent.ckpt")


def test_an_instance_does_not_load(checkpoint: Path):
    with pytest.raises(TypeError, match="call it on the class"):
        DetectionModule(num_classes=2).load_from_checkpoint(checkpoint)
