import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.files.sidecar import Sidecar
from lightning_prune.runs.checkpoint.newest_checkpoint import newest_checkpoint, search_checkpoints
from tests.callbacks.classifiers import Classifier, trainer
from tests.files.hostile import hostile_files


def save(path: Path, step: int, epoch: int = 0, age: int = 0, **more: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    full = {"loops": {}, "optimizer_states": [], "lr_schedulers": []}
    state = {"w": torch.full((50,), float(step))}
    torch.save({"state_dict": state, "epoch": epoch, "global_step": step, **full, **more}, path)
    os.utime(path, ns=(10**18 - age, 10**18 - age))
    return path


def test_by_steps_then_epochs_then_time(tmp_path: Path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None
    expected = [
        save(tmp_path / "checkpoints/d.ckpt", 20, 1, 5),
        save(tmp_path / "checkpoints/c.ckpt", 20, 1, 9),
        save(tmp_path / "b.ckpt", 20, 0),
        save(tmp_path / "checkpoints/a.ckpt", 9, 7),
    ]
    for path in expected:
        assert newest_checkpoint(tmp_path) == path
        path.unlink()


def test_what_is_passed_over_and_why(tmp_path: Path):
    good = save(tmp_path / "good.ckpt", 1)
    older = save(tmp_path / "older.ckpt", 0)
    torn, flipped, altered = (save(tmp_path / f"{n}.ckpt", 9) for n in ("torn", "flipped", "sum"))
    torn.write_bytes(torn.read_bytes()[:-30])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    Sidecar(altered).write(["0" * 64])
    torch.save({"state_dict": {}, "epoch": 1, "global_step": 50}, tmp_path / "weights.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    save(tmp_path / "objects.ckpt", 9, hyper_parameters={"path": Path("x")})
    save(tmp_path / "words.ckpt", 9, epoch="nine")
    (tmp_path / "link.ckpt").symlink_to("nowhere")
    (tmp_path / "folder.ckpt").mkdir()
    found = search_checkpoints(tmp_path)
    assert found.path == good
    reasons = {
        "torn": "damaged or torn", "flipped": "checksum", "sum": "does not match",
        "weights": "has no loops and no optimizer_states", "list": "no Lightning checkpoint",
        "objects": "pickled objects", "words": "is no number",
        "link": "a link to 'nowhere'", "folder": "a folder, not a file",
    }  # fmt: skip
    assert {path.stem for path in found.skipped} == reasons.keys()
    for path, reason in found.skipped.items():
        assert reasons[path.stem] in reason
        assert str(path) not in reason
    assert str(good) in found.describe()
    good.unlink()
    older.unlink()
    assert "no other intact checkpoint" in search_checkpoints(tmp_path).describe()


def test_files_that_would_crash_or_stop_the_search_are_passed_over(tmp_path: Path):
    good = save(tmp_path / "good.ckpt", 1)
    huge = {"global_step": 2**62, "epoch": 0, "state_dict": {}, "loops": {}}
    huge |= {"optimizer_states": [], "lr_schedulers": []}
    torch.save(huge | {"epoch": -1}, tmp_path / "negative.ckpt")
    torch.save(huge | {"optimizer_states": "x"}, tmp_path / "text.ckpt")
    save(tmp_path / "sidecar.ckpt", 9)
    (tmp_path / "sidecar.ckpt.sha256").mkdir()
    save(tmp_path / "pipe.ckpt", 9)
    os.mkfifo(tmp_path / "pipe.ckpt.sha256")
    (tmp_path / "new\nline.ckpt").write_text("<html>")
    (tmp_path / "made").mkdir()
    for name, path, _ in hostile_files(tmp_path / "made"):
        path.rename(tmp_path / f"hostile {name.replace('/', ' ')[:50]!r}.ckpt")
    found = search_checkpoints(tmp_path)
    assert found.path == good
    assert len(found.skipped) == len(list(tmp_path.glob("*.ckpt"))) - 1
    assert not any("\n" in reason for reason in found.skipped.values())
    reasons = {path.name: reason for path, reason in found.skipped.items()}
    assert "sidecar.ckpt.sha256 cannot be read: a folder" in reasons["sidecar.ckpt"]
    assert "pipe.ckpt.sha256 cannot be read: a named pipe" in reasons["pipe.ckpt"]
    assert reasons["negative.ckpt"] == "altered: epoch is no number from 0 to 2^63"
    assert "web page" in reasons["new\nline.ckpt"]
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert newest_checkpoint(loop) is None
    assert newest_checkpoint(tmp_path / "good.ckpt") is None


def test_only_the_structure_of_the_older_ones_is_read(tmp_path: Path, monkeypatch):
    newest = save(tmp_path / "b.ckpt", 2)
    save(tmp_path / "a.ckpt", 1)
    read: list[Path] = []
    original = Sidecar.is_there
    monkeypatch.setattr(
        Sidecar, "is_there", lambda self: read.append(self.target) or original(self)
    )
    assert newest_checkpoint(tmp_path) == newest
    assert set(read) == {newest.resolve()}


@pytest.mark.parametrize("weights_only", [False, True])
def test_files_of_lightning(tmp_path: Path, weights_only: bool):
    fit = trainer(tmp_path, [], 1)
    fit.fit(Classifier())
    fit.save_checkpoint(tmp_path / "a.ckpt", weights_only)
    assert newest_checkpoint(tmp_path) == (None if weights_only else tmp_path / "a.ckpt")
