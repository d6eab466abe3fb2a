from pathlib import Path

from tests.benchmarks.as_script import quick_run


def test_quick_run_counts_forward_passes_and_memory(tmp_path: Path) -> None:
    row = quick_run("walk", tmp_path)
    seconds = row["seconds"]
    assert row["groups"] == 59
    assert row["norms"] > 50
    assert row["layers_refitted"] > 60
    whole = seconds["choosing"] + seconds["walking"]
    assert abs(row["passes"] - whole / seconds["forward"]) < 0.01
    assert 0 < seconds["algebra"] < whole
    assert row["memory_mib"] >= 0
