import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_compares_ways_of_masking(tmp_path: Path) -> None:
    output = tmp_path / "masking.json"
    command = [sys.executable, "benchmarks/masking.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    (row,) = result["rows"]
    assert (row["model"], row["batch_size"], row["image_size"]) == ("yolov8n", 2, 64)
    # Half of the rows and half of the columns of nearly every weight.
    assert 0.6 < row["weights_masked"] / row["weights"] < 0.8
    seconds, share = row["seconds"], row["share_of_step"]
    assert all(taken > 0 for taken in seconds.values())
    assert share["held"] == seconds["hold"] / seconds["plain"]
    assert seconds["hold"] < seconds["index_fill"]
