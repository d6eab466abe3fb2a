import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_times_both_and_cuts_the_same(tmp_path: Path) -> None:
    output = tmp_path / "graph.json"
    command = [sys.executable, "benchmarks/graph.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    row = json.loads(output.read_text())["rows"]["tiny"]
    assert row["ours"].keys() == row["torch_pruning"].keys() == {"seconds", "groups", "left"}
    assert row["ours"]["left"] == row["torch_pruning"]["left"] == 0.5
    assert row["ours"]["groups"] == row["torch_pruning"]["groups"] == 1
    assert list(row["ours"]["seconds"]) == ["build", "trial", "cut"]
    assert list(row["torch_pruning"]["seconds"]) == ["build", "groups", "cut"]


def test_who_fails_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from graph import line, outcome_of

    missing = outcome_of({"error": "No module named 'ultralytics'", "kind": "ModuleNotFoundError"})
    assert "No module named 'ultralytics'" in line("yolo11x", missing)
    hang = outcome_of({"hang": "no answer"})
    seconds = {"build": 1.0, "trial": 2.0, "cut": 0.5}
    row = {"ours": {"seconds": seconds}, "torch_pruning": hang}
    words = " ".join(line("swin_t", row).split())
    assert words == "swin_t 1.00 2.00 0.50 - - - torch_pruning: no answer"
