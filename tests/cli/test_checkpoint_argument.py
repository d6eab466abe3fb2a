"""Which checkpoint a run's folder stands for."""

import os
from pathlib import Path

import pytest

from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.errors import ConfigError


def run_with(folder: Path, *names: str, inner: str = "checkpoints") -> Path:
    """Write files, the later ones later."""
    for second, name in enumerate(names):
        file = folder / inner / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (second, second))
    return folder


@pytest.mark.parametrize(
    ("names", "report", "chosen"),
    [
        (["best_pruned.ckpt", "best.ckpt", "dense.ckpt", "last.ckpt"], True, "best_pruned.ckpt"),
        (["best_pruned-a.ckpt", "best_pruned-b.ckpt", "last.ckpt"], True, "best_pruned-b.ckpt"),
        (["last.ckpt", "best.ckpt", "dense.ckpt"], True, "last.ckpt"),
        (["best.ckpt", "last.ckpt"], False, "best.ckpt"),
        (["last.ckpt", "epoch_003.ckpt"], False, "last.ckpt"),
        (["epoch_003.ckpt", "epoch_001.ckpt"], False, "epoch_001.ckpt"),
        (["epoch_003.ckpt", "best.ckpt.sha256", "x.txt"], True, "epoch_003.ckpt"),
    ],
)
def test_the_best_after_the_cut_comes_first(
    names: list[str],
    report: bool,
    chosen: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    run_with(tmp_path, *names)
    if report:
        (tmp_path / "pruning_report.json").write_text("{}")
    wanted = tmp_path / "checkpoints" / chosen
    assert checkpoint_argument(tmp_path) == wanted
    assert checkpoint_argument(tmp_path / "checkpoints") == wanted
    out, err = capsys.readouterr()
    assert not out  # of a command whose output is piped on
    assert f"{wanted} is taken" in err


def test_files_and_what_is_not_there_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = run_with(tmp_path, "a.ckpt", inner="") / "a.ckpt"
    assert checkpoint_argument(file) == file
    assert checkpoint_argument(tmp_path / "none.ckpt") == tmp_path / "none.ckpt"
    assert capsys.readouterr() == ("", "")
    assert checkpoint_argument(tmp_path) == file


def test_other_folders_are_explained(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no \*\.ckpt in"):
        checkpoint_argument(tmp_path)
    for job in range(5):
        run_with(tmp_path / str(job), "last.ckpt")
    with pytest.raises(ConfigError, match=r"several runs.*/0, .*/1, .*/2 and 2 more\)"):
        checkpoint_argument(tmp_path)
