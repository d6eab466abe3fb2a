from pathlib import Path

from tests.benchmarks.as_script import quick_run

VARIANTS = {"32 bits", "32 bits, channels last", "bf16", "bf16, channels last"}


def test_quick_run_times_each_variant_of_dense_and_cut(tmp_path: Path) -> None:
    content = quick_run("cpu_training", tmp_path)
    assert len(content["rows"]) == 3
    for row in content["rows"].values():
        for kind in ("step", "evaluation"):
            assert row[kind].keys() == VARIANTS
            base = row[kind]["32 bits"]
            assert base["faster"] == 1
            for found in row[kind].values():
                assert abs(found["faster"] - base["ms"] / found["ms"]) < 0.1 * found["faster"] + 0.1
    assert isinstance(content["fast_bf16"], bool)
