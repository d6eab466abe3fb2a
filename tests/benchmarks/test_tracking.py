from pathlib import Path

from tests.benchmarks.as_script import quick_run


def test_quick_run_compares_ways_of_counting(tmp_path: Path) -> None:
    result = quick_run("tracking", tmp_path)
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
