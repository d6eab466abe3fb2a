import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_compares_three_networks(tmp_path: Path) -> None:
    output = tmp_path / "neural.json"
    command = [sys.executable, "benchmarks/neural.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    rows = {(row["part"], row["pass"]): row for row in result["rows"]}
    parts = ["whole", "front end", "block 0", "block 1", "block 2", "modulator", "readouts"]
    passes = ["forward", "forward+backward"]
    assert max(result["relative_difference"].values()) < 1e-4
    assert list(rows) == [(part, kind) for part in parts for kind in passes]
    for row in rows.values():
        assert row["seconds"].keys() == {"plain", "ours", "pruned"}
        assert all(taken > 0 for taken in row["seconds"].values())
