from pathlib import Path

from tests.benchmarks.as_script import quick_run


def test_quick_run_compares_three_networks(tmp_path: Path) -> None:
    result = quick_run("neural", tmp_path)
    rows = {(row["part"], row["pass"]): row for row in result["rows"]}
    parts = ["whole", "front end", "block 0", "block 1", "block 2", "modulator", "readouts"]
    passes = ["forward", "forward+backward"]
    assert max(result["relative_difference"].values()) < 1e-4
    assert list(rows) == [(part, kind) for part in parts for kind in passes]
    for row in rows.values():
        assert row["seconds"].keys() == {"plain", "ours", "pruned"}
        assert all(taken > 0 for taken in row["seconds"].values())
