from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from lightning_prune.cli.run_checkpoints import checkpoint_files, run_checkpoints


def save(path: Path, epoch: int, step: int, width: int = 4, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {"weight": torch.full((width, 2), float(step))}
    content = {"state_dict": state, "epoch": epoch, "global_step": step}
    torch.save({**content, "pytorch-lightning_version": L.__version__, **more}, path)
    return path


def test_one_per_epoch_in_order(tmp_path: Path):
    for epoch in (10, 2, 9):
        save(tmp_path / f"checkpoints/epoch_{epoch}.ckpt", epoch, 10 * epoch)
    save(tmp_path / "checkpoints/last.ckpt", 10, 100)
    save(tmp_path / "checkpoints/best.ckpt", 2, 20)
    save(tmp_path / "checkpoints/middle.ckpt", 9, 85)
    save(tmp_path / "checkpoints/saved_after_fit.ckpt", 11, 100)
    save(tmp_path / "elsewhere.ckpt", 3, 30)
    found, skipped = run_checkpoints(checkpoint_files(tmp_path))
    assert skipped == {}
    assert [(one.path.name, one.epoch, one.step, one.also) for one in found] == [
        ("epoch_2.ckpt", 2, 20, ("best.ckpt",)),
        ("epoch_9.ckpt", 9, 90, ("middle.ckpt",)),
        ("epoch_10.ckpt", 10, 100, ("last.ckpt", "saved_after_fit.ckpt")),
    ]
    assert found[1].weights()["weight"][0, 0] == 90


def test_files_in_the_folder_itself(tmp_path: Path):
    path = save(tmp_path / "a.ckpt", 0, 1)
    assert checkpoint_files(tmp_path) == [path]


def test_later_phases_and_damaged_files_are_left_out(tmp_path: Path):
    save(tmp_path / "a.ckpt", 0, 1)
    masker = {"finished": False, "cut": False, "originals": {"conv": torch.ones(1)}}
    save(tmp_path / "masked.ckpt", 1, 2, callbacks={"ChannelMasker": masker})
    save(tmp_path / "cut.ckpt", 2, 3, width=3)
    save(tmp_path / "idle.ckpt", 3, 4, callbacks={"ChannelMasker": masker | {"originals": None}})
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "torn.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    save(tmp_path / "objects.ckpt", 4, 5, hyper_parameters={"path": Path("x")})
    found, skipped = run_checkpoints(checkpoint_files(tmp_path))
    assert [one.path.name for one in found] == ["a.ckpt", "idle.ckpt"]
    reasons = {
        "masked.ckpt": "some of its channels are masked",
        "cut.ckpt": "other shapes than those of a.ckpt",
        "torn.ckpt": "damaged",
        "empty.ckpt": "damaged",
        "plain.ckpt": "no Lightning checkpoint",
        "objects.ckpt": "pickled objects",
    }
    assert skipped.keys() == reasons.keys()
    assert all(reason in skipped[name] for name, reason in reasons.items())


def test_weights_that_diverged(tmp_path: Path):
    save(tmp_path / "a.ckpt", 0, 1, state_dict={"weight": torch.tensor([1.0, float("nan")])})
    (one,), _ = run_checkpoints(checkpoint_files(tmp_path))
    with pytest.raises(ValueError, match="weight holds NaN or infinity"):
        one.weights()
