"""The file that says what a run came to."""

import json
import math
from pathlib import Path

from lightning_prune.runs.run_result import write_result

METRICS = """step,regularize/mean_norm,regularize/low_channels,pruning/macs
10,2.0,0.0,
20,1.0,0.25,
30,,,0.75
40,,,0.5
"""


def read(folder: Path) -> dict[str, object]:
    found = json.loads((folder / "result.json").read_text())
    assert isinstance(found, dict)
    return found


def test_what_the_stages_logged(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    write_result(tmp_path, "val/map", 0.5, {"test/map": 0.25})
    assert read(tmp_path) == {
        "monitor": "val/map",
        "value": 0.5,
        "metrics": {"test/map": 0.25},
        "norm_drop": 0.5,
        "low_channels": 0.25,
        "macs": 0.5,
    }


def test_a_cut_model_is_counted_rather_than_a_masked_one(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    write_result(tmp_path, "val/map", 0.5, {}, 0.48)
    assert read(tmp_path)["macs"] == 0.48
    write_result(tmp_path, "val/map", 0.5, {}, None)  # the run ended before the cut
    assert read(tmp_path)["macs"] == 0.5


def test_a_diverged_run_is_shown_as_it_is(tmp_path: Path):
    write_result(tmp_path, "val/map", math.nan, {"test/map": math.inf})
    found = read(tmp_path)
    assert (found["value"], found["metrics"]) == ("nan", {"test/map": "inf"})
    assert found["norm_drop"] is found["low_channels"] is found["macs"] is None
