"""One line an epoch, with the mean loss that a loop by hand gives."""

import re
from pathlib import Path

import lightning as L
import pytest
import torch

from lightning_prune.cli.progress import EpochProgress, epoch_lines
from tests.cli.fakes import Line, Points


def fit(folder: Path, progress: EpochProgress) -> None:
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[progress],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Line(), datamodule=Points())


def losses_by_hand() -> list[float]:
    x = torch.linspace(0, 1, 8)
    w, means = torch.tensor(0.0), []
    for _ in range(2):
        losses = []
        for part in (x[:4], x[4:]):
            losses.append(((w - 2) * part).square().mean())
            w = w - 0.1 * (2 * (w - 2) * part.square()).mean()
        means.append(float(sum(losses)) / 2)
    return means


def test_lines_in_a_log_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    fit(tmp_path, EpochProgress())
    out, err = capfd.readouterr()
    lines = [line for line in out.splitlines() if line.startswith("epoch")]
    first, second = losses_by_hand()
    assert re.fullmatch(
        rf"epoch 1/2  train/loss {first:.4f}  val/map50_95 1\.0000  \d+\.\d s", lines[0]
    )
    assert re.fullmatch(
        rf"epoch 2/2  train/loss {second:.4f}  val/map50_95 2\.0000  \d+\.\d s", lines[1]
    )
    assert len(lines) == 2
    assert "\r" not in out + err


def test_bar_and_lines_on_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name in ("CI", "CONTINUOUS_INTEGRATION", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    progress = EpochProgress(refresh_rate=2)
    monkeypatch.undo()
    assert progress.refresh_rate == 2
    fit(tmp_path, progress)
    out, err = capfd.readouterr()
    assert "\r" in out + err
    assert "epoch 2/2  train/loss" in out + err


class Sessions(Line):
    """Logs a metric of many sessions beside their mean, and one that has no mean."""

    def validation_step(self, batch, batch_idx):
        for name in ("val/bps", "val/bps/one", "val/bps/two", "val/other/one"):
            self.log(name, 0.5, batch_size=len(batch[0]))


def line_of(folder: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[EpochProgress()],
        default_root_dir=folder, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Sessions(), datamodule=Points())
    lines = capfd.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("epoch"))
    return lines[start:]


def test_of_many_sessions_the_mean_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    (line,) = line_of(tmp_path, capfd)
    assert re.fullmatch(
        r"epoch 1/1  train/loss \d\.\d{4}  val/bps 0\.5000  val/other/one 0\.5000  \d\.\d s", line
    )


def test_a_narrow_terminal_breaks_between_numbers():
    parts = ["epoch 1/9", "mask to 50% of MACs", "train/loss 1.0000", "val/a 0.5000", "1.0 s"]
    assert epoch_lines(parts, None) == ["  ".join(parts)]
    assert epoch_lines(parts, 45) == [
        "epoch 1/9  mask to 50% of MACs",
        "  train/loss 1.0000  val/a 0.5000  1.0 s",
    ]
    assert epoch_lines(parts, 5) == [parts[0], *(f"  {part}" for part in parts[1:])]


def test_refresh_rate_is_checked():
    with pytest.raises(ValueError, match=r"refresh_rate=0 .* callbacks\.progress=null"):
        EpochProgress(refresh_rate=0)
