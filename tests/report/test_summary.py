"""A report in ten lines."""

from dataclasses import replace
from pathlib import Path

from lightning_prune.report.report_data import CheckpointRow, LayerUsage, ReportData, Usage
from lightning_prune.report.summary import summary
from tests.report.reports import content, row

FILES = [
    CheckpointRow("checkpoints/dense.ckpt", "dense", 1, None, None, "before", 9, None),
    CheckpointRow("checkpoints/last.ckpt", "cut", 5, None, None, "the latest", 9, None),
    CheckpointRow(
        "checkpoints/best_pruned.ckpt", "cut", 4, 0.9, "val/map50", "highest val/map50", 5_600_000
    ),
]


def full() -> ReportData:
    report = content()
    report.checkpoints, report.latency_runtime = FILES, "ONNX Runtime 1.32.0"
    report.refused = {"head": "output of the network", "neck": "output of the network"}
    for side in (report.dense, report.pruned):
        side.metrics |= {"test/loss": 2.0, "test/a": 0.5, "test/b": 0.5, "val/map50": 0.8}
    return report


def test_ten_lines_say_what_was_gained_what_it_cost_and_what_to_deploy():
    report = full()
    lines = summary(report, Path("outputs/a b"))
    assert len(lines) == 10
    assert lines[0].split() == ["dense", "pruned", "change"]
    # The metric that chose the checkpoint stands first, losses last.
    assert lines[1].split() == ["test/map50", "0.9100", "0.9050", "-0.0050"]
    assert lines[2].split()[0] == "test/a"
    assert lines[3].split() == ["MACs", "200", "M", "90", "M", "-55.0%"]
    assert lines[4].split() == ["parameters", "3", "M", "1.5", "M", "-50.0%"]
    assert lines[5].endswith("-37.5% in ONNX Runtime 1.32.0")
    groups = {one.group for one in report.layers}
    narrower = {one.group for one in report.layers if one.channels_after < one.channels_before}
    assert f"{len(narrower)} of {len(groups)} groups narrower" in lines[6]
    assert "2 layers refused (output of the network)" in lines[6]
    best = "checkpoints/best_pruned.ckpt (epoch 5, highest val/map50, 5.6 MB)"
    assert lines[7] == f"deploy        {best}"
    assert lines[8] == "look          outputs/a b/report.html"
    assert "python -m lightning_prune report 'outputs/a b'" in lines[9]
    starts = {line.index(line.split()[1]) for line in lines[1:5]}
    assert starts == {14}


def test_without_a_metric_the_latest_file_of_the_cut_model_is_deployed():
    report = full()
    report.checkpoints = FILES[:2]
    assert "deploy        checkpoints/last.ckpt (epoch 6, the latest, 9 B)" in summary(report)
    report.checkpoints = FILES[:1]
    assert not [line for line in summary(report) if line.startswith("deploy")]


def test_the_most_common_reason_stands_for_all_and_long_ones_are_shortened():
    report = full()
    report.refused = {"a": "one", "b": "many " * 40, "c": "many " * 40}
    (line,) = [line for line in summary(report) if line.startswith("channels")]
    assert "3 layers refused (many many" in line
    assert line.endswith(" ...)")
    assert len(line) < 120


def test_fallbacks_are_counted_once_a_group():
    report = full()
    report.layers = [
        replace(row("a"), status="fallback", reason="no object"),
        replace(row("b"), status="fallback", reason="no object", group="a"),
    ]
    assert any(", 1 by fallback" in line for line in summary(report))


def test_where_usage_alone_was_tracked_there_is_one_model():
    report = ReportData(usage=Usage(0.0, [0], {"a": LayerUsage([8], [5], [3])}))
    report.dense.metrics = {"val/acc": 0.5}
    assert summary(report) == [
        "val/acc       0.5000",
        "usage         5 of 8 channels used in the last epoch; 3 reset in all",
    ]
