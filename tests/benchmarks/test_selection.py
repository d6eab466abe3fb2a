import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_quick_run_writes_every_step(tmp_path: Path) -> None:
    output = tmp_path / "selection.json"
    command = [sys.executable, "benchmarks/selection.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    (row,) = result["rows"]
    assert (row["channels"], row["classes"]) == (16, 3)
    assert set(row["seconds"]) == {
        "moments", "separability", "embedding", "sweep", "mss", "knee", "choice"
    }  # fmt: skip
    assert all(seconds > 0 for seconds in row["seconds"].values())
    assert 4 <= row["kept"] <= 8
    assert result["peak_memory_mb"] >= result["peak_memory_after_imports_mb"] > 0


def test_comparison_with_peers_is_fair(tmp_path: Path) -> None:
    """The peers' losses are computed by us from their medoids, over every k, best of five."""
    import numpy as np

    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        from selection_peers import run
    finally:
        sys.path.pop(0)
    points = np.random.default_rng(0).normal(size=(12, 2))
    diss = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    answer = run(lambda d, k, seed: np.arange(seed, seed + k) % 12, diss, seconds=30)
    assert not answer["extrapolated"]
    assert answer["seeds"] == 5
    for k, loss in answer["best_loss"].items():
        sets = [(np.arange(seed, seed + int(k)) % 12) for seed in range(5)]
        assert loss == min(float(diss[:, m].min(axis=1).sum()) for m in sets)
