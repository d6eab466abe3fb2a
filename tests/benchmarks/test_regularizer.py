from pathlib import Path

from tests.benchmarks.as_script import quick_run


def test_quick_run_compares_with_torch_pruning(tmp_path: Path) -> None:
    (row,) = quick_run("regularizer", tmp_path)["rows"]
    assert (row["model"], row["batch_size"], row["image_size"]) == ("yolov8n", 2, 64)
    assert row["groups"] > 50
    assert row["largest_difference"] < 1e-4
    seconds = row["seconds"]
    assert row["share_of_step"]["ours"] == seconds["ours"] / seconds["step"]
    assert 0 < seconds["ours"] < seconds["torch_pruning"]
    assert row["torch_pruning_times_ours"] == seconds["torch_pruning"] / seconds["ours"]
