"""Where a run continues, and what it takes up."""

import errno
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from lightning_prune.errors import ConfigError
from lightning_prune.runs.checkpoint.newest_checkpoint import CheckpointSearch
from lightning_prune.runs.resume import run_start
from lightning_prune.runs.resume.run_start import RunStart, find_start, set_aside, take_up


def test_changes_are_named_by_their_keys():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": 1, "resume": None, "model": {"weights": "x"}}
    new = {"a": {"b": 2, "c": [1, 2]}, "new": {}, "resume": "y", "model": {"weights": None}}
    start = RunStart(Path("last.ckpt"), old, {})
    assert start.changes(new) == ["a.b: 1 -> 2", "gone: 1 -> absent", "new: absent -> {}"]


def test_what_the_weights_said_comes_from_the_checkpoint():
    model = {"weights": "yolov8s.pt", "size": None, "lr": 0.1, "names": None}
    cfg = OmegaConf.create({"ckpt_path": None, "dense_epochs": 12, "model": model})
    start = RunStart(Path("last.ckpt"), {"dense_epochs": 0}, {"size": "s", "lr": 0.5})
    take_up(cfg, start, keep_epochs=True)
    assert cfg.model == {"weights": None, "size": "s", "lr": 0.1, "names": None}
    assert (cfg.ckpt_path, cfg.dense_epochs) == ("last.ckpt", 0)
    cfg.dense_epochs = 3
    take_up(cfg, start, keep_epochs=False)
    assert cfg.dense_epochs == 3


def test_a_folder_without_an_intact_checkpoint_is_cleared(tmp_path: Path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(b"torn")
    torch.save({"state_dict": {}}, tmp_path / "checkpoints/dense.ckpt")
    (tmp_path / "metrics.csv").write_text("step\n1\n")
    (tmp_path / "train.log").write_text("kept")
    assert find_start(tmp_path) is None
    out = capsys.readouterr().out
    assert f"{tmp_path / 'checkpoints/last.ckpt'} is passed over: " in out
    assert "dense.ckpt" not in out, "weights alone are no fault"
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    inner = {f"earlier_1/{name}" for name in ("checkpoints/last.ckpt", "checkpoints/dense.ckpt")}
    assert kept == inner | {"earlier_1/metrics.csv", "train.log"}
    set_aside(tmp_path)
    assert not (tmp_path / "earlier_2").exists()
    (tmp_path / "metrics.csv").touch()
    set_aside(tmp_path)
    assert (tmp_path / "earlier_2/metrics.csv").exists()


def test_what_a_checkpoint_says_stays_plain():
    cfg = OmegaConf.create({"dense_epochs": 1, "model": {"weights": "x", "names": None}})
    start = RunStart(Path("last.ckpt"), {"dense_epochs": "${oc.env:HOME}"}, {})
    start.hyper_parameters["names"] = ["${oc.env:HOME}"]
    take_up(cfg, start, keep_epochs=True)
    assert (cfg.dense_epochs, list(cfg.model.names)) == (1, ["${oc.env:HOME}"])
    cfg.model = {"weights": "x", "names": None}
    start.hyper_parameters["names"] = [{"_target_": "os.system", "command": "true"}]
    with pytest.raises(ConfigError, match=r"names\[0\], read from a file, describes an object"):
        take_up(cfg, start, keep_epochs=True)


def test_a_disk_that_cannot_read_a_file_starts_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"PK")
    skipped = {path: "unreadable (Input/output error)"}
    found = CheckpointSearch(None, skipped, frozenset([path]))
    with monkeypatch.context() as disk:
        disk.setattr(run_start, "search_checkpoints", lambda folder: found)
        with pytest.raises(ConfigError, match=r"could not read .*last\.ckpt \(unreadable \(Input"):
            run_start.find_start(tmp_path)

    def refuse(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(run_start.os, "listdir", refuse)
    with pytest.raises(ConfigError, match=r"could not read .*\(Permission denied\)"):
        run_start.find_start(tmp_path)
    assert path.read_bytes() == b"PK"
