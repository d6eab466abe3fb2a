import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_compares_with_torch_pruning(tmp_path: Path) -> None:
    output = tmp_path / "regularizer.json"
    command = [sys.executable, "benchmarks/regularizer.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (row,) = json.loads(output.read_text())["rows"]
    assert (row["model"], row["batch_size"], row["image_size"]) == ("yolov8n", 2, 64)
    assert row["groups"] > 50
    assert row["largest_difference"] < 1e-4
    seconds = row["seconds"]
    assert row["share_of_step"]["ours"] == seconds["ours"] / seconds["step"]
    assert 0 < seconds["ours"] < seconds["torch_pruning"]
    assert row["torch_pruning_times_ours"] == seconds["torch_pruning"] / seconds["ours"]
