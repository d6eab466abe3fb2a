from pathlib import Path

from tests.benchmarks.as_script import quick_run


def test_quick_run_compares_the_passes(tmp_path: Path) -> None:
    result = quick_run("activations", tmp_path)
    (row,) = result["rows"]
    assert (row["image_size"], row["batch_size"], row["images"]) == (64, 8, 32)
    assert row["objects_read"] > 32
    assert row["layers"]["every"] > row["layers"]["collection"] > 60
    seconds = row["seconds"]
    assert all(taken > 0 for clocks in seconds.values() for taken in clocks.values())
    for base, ratios in row["times_the_pass_without"].items():
        for name, clocks in ratios.items():
            assert clocks["wall"] == seconds[name]["wall"] / seconds[base]["wall"]
    # The result has the same size however many images went in.
    assert [line["images"] for line in result["memory"]] == [32, 64]
    assert len({line["result_mb"] for line in result["memory"]}) == 1
