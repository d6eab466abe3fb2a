"""Every file of examples/ runs, with the small arguments of tests/overrides.py."""

import importlib.util
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.vision.image_folder import ImageFolderData
from tests.overrides import EXAMPLES

FOLDER = Path(__file__).resolve().parent.parent / "examples"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(FOLDER)  # as for `python examples/name.py`
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        # Little trained models find few objects.
        warnings.filterwarnings("ignore", ".*matched")
        warnings.filterwarnings("ignore", ".*You defined a `validation_step`")
        # Whole layers die, as they are meant to.
        warnings.filterwarnings("ignore", ".*no channel of features")
        return module.main(folder=str(folder / "out"), **EXAMPLES[name])


def test_every_example_is_tested_and_short():
    files = {path.stem: path.read_text().splitlines() for path in FOLDER.glob("*.py")}
    assert files.keys() == EXAMPLES.keys()
    assert all(sum(map(bool, lines)) < 60 for lines in files.values())


def test_the_detector(tmp_path, monkeypatch):
    # 59 figures, which tests/report draws, would take as long as all the rest.
    monkeypatch.setattr(PruningReport, "_draw", lambda *_: None)
    run("prune_detector", tmp_path, monkeypatch)
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert report["pruned"]["macs"] <= 0.4 * report["dense"]["macs"]
    assert len(report["layers"]) > 50
    state = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)[
        "state_dict"
    ]
    sizes = sum(v.numel() for k, v in state.items() if k.startswith("network."))
    assert sizes < 0.7 * report["dense"]["parameters"]


def test_the_digits_as_a_folder(tmp_path, monkeypatch):
    assert run("write_digit_folder", tmp_path, monkeypatch) == 400
    data = ImageFolderData(tmp_path / "out", image_size=32)
    assert data.names == [str(digit) for digit in range(10)]
    counts = [len(data.dataset(split)) for split in ("train", "val", "test")]
    assert counts == [280, 60, 60]


def test_the_classifier(tmp_path, monkeypatch):
    accuracy = run("prune_classifier", tmp_path, monkeypatch)
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert report["pruned"]["macs"] <= 0.3 * report["dense"]["macs"]
    assert accuracy == report["pruned"]["metrics"]["val/accuracy"]
    assert accuracy > 0.8


def test_the_transformer(tmp_path, monkeypatch):
    accuracy = run("prune_transformer", tmp_path, monkeypatch)
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert report["pruned"]["macs"] <= 0.5 * report["dense"]["macs"]
    pruned = {row["group"] for row in report["layers"] if row["status"] == "pruned"}
    assert "patches" in pruned  # the residual stream
    assert any(group.endswith("qkv") for group in pruned)  # heads
    assert any(group.endswith("mlp.0") for group in pruned)
    assert accuracy == report["pruned"]["metrics"]["val/accuracy"]
    assert accuracy > 0.8


def test_a_network_of_ones_own_by_norm(tmp_path, monkeypatch):
    accuracy = run("prune_by_norm", tmp_path, monkeypatch)
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert report["pruned"]["macs"] <= 0.5 * report["dense"]["macs"]
    assert {row["channels_after"] % 8 for row in report["layers"]} == {0}
    assert accuracy == report["pruned"]["metrics"]["val/accuracy"]
    assert accuracy > 0.8


def test_the_listener(tmp_path, monkeypatch, capsys):
    listener = run("listen_to_pruning", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    width = len(listener.strength)
    assert width <= 32
    assert f"features.3: 64 channels, {width} stay" in printed


def test_the_periodic_reset(tmp_path, monkeypatch, capsys):
    accuracy = run("periodic_reset", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    found = re.findall(r"^(.*): accuracy (.*), (\d+) of 40 channels answer$", printed, re.MULTILINE)
    assert {name: value for name, value, _ in found} == {n: f"{a:.3f}" for n, a in accuracy.items()}
    assert all(0 <= int(living) <= 40 for *_, living in found)
    (numbers,) = re.findall(r"^resets: features.2: channels.*: \[(.*)\]$", printed, re.MULTILINE)
    first, second, third, fourth, fifth = map(int, numbers.split(", "))
    assert first == second == fourth == 0 < third + fifth, "every second epoch"
    assert "no resets: features" not in printed


def test_the_adaptive_reset(tmp_path, monkeypatch, capsys):
    reset = run("adaptive_reset", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert reset
    assert len(set(reset)) == len(reset), "a layer that was reset is tracked no longer"
    for name in reset:
        _, after = printed.split(f"{name}: ")[-1].split(" ", 1)
        assert after.startswith("channels start again")


def test_the_monitor(tmp_path, monkeypatch, capsys):
    rows = run("monitor_usage", tmp_path, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len(rows) == 2
    assert all(
        0 <= used <= width for row in rows for used, width in zip(row, (8, 16, 16), strict=True)
    )
    assert sum(rows[1]) < sum(rows[0]) <= 40, "at such a rate channels die"
    start = next(place for place, line in enumerate(lines) if line.startswith("epoch accuracy"))
    assert lines[start + 1].split()[2] == str(rows[0][0])
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert report["usage"]["epochs"] == [0, 1]
    assert [row["used"][0] for row in report["usage"]["layers"].values()] == rows[0]
