from pathlib import Path

from tests.benchmarks.as_script import quick_run


def test_quick_run_compares_the_ways_to_half_the_macs(tmp_path: Path) -> None:
    result = quick_run("compress", tmp_path)
    (row,) = result["rows"].values()
    assert result["seeds"] == [0]
    assert 0 < row["macs"][0] <= 0.5
    for how in ("dense", "norm", "walk", "steps"):
        assert 0 <= row[how][0] <= 1
    # What is repaired is nearer to the dense network than what is not.
    assert row["walk"][0] > row["norm"][0]
