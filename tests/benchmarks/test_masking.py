from pathlib import Path

from tests.benchmarks.as_script import quick_run


def test_quick_run_compares_ways_of_masking(tmp_path: Path) -> None:
    result = quick_run("masking", tmp_path)
    (row,) = result["rows"]
    assert (row["model"], row["batch_size"], row["image_size"]) == ("yolov8n", 2, 64)
    # Half of the rows and half of the columns of nearly every weight.
    assert 0.6 < row["weights_masked"] / row["weights"] < 0.8
    seconds, share = row["seconds"], row["share_of_step"]
    assert all(taken > 0 for taken in seconds.values())
    assert share["held"] == seconds["hold"] / seconds["plain"]
    assert seconds["hold"] < seconds["index_fill"]
