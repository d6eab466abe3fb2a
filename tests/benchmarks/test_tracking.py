import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_compares_ways_of_counting(tmp_path: Path) -> None:
    output = tmp_path / "tracking.json"
    command = [sys.executable, "benchmarks/tracking.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    (row,) = result["rows"]
    assert (row["model"], row["batch_size"], row["image_size"]) == ("yolov8n", 2, 64)
    # All convolutions but the last ones of the head's branches, which have no activation.
    assert row["layers"] > 50
    assert row["channels"] > 5000
    assert row["same_counts"]
    assert row["hooks_when_off"] == 0
    seconds, share = row["seconds"], row["share_of_step"]
    assert all(taken > 0 for taken in seconds.values())
    assert 0 < share["tracked"] < 1
