"""A report in ten lines."""

from dataclasses import replace

import pytest

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
    report.dense.bytes, report.pruned.bytes = 12_000_000, 6_000_000
    for side in (report.dense, report.pruned):
        side.metrics |= {"test/loss": 2.0, "test/a": 0.5, "test/b": 0.5, "val/map50": 0.8}
    return report


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a run of the command line, below the current one."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "a b"
    run.mkdir(parents=True)
    for name in ("config.yaml", "report.html"):
        (run / name).touch()
    return run


def test_ten_lines_say_what_was_gained_what_it_cost_and_what_to_deploy(folder):
    report = full()
    lines = summary(report, folder)
    assert len(lines) == 10
    assert lines[0].split() == ["dense", "pruned", "change"]
    # The metric that chose the checkpoint stands first, losses last.
    assert lines[1].split() == ["test/map50", "0.9100", "0.9050", "-0.0050"]
    assert lines[2].split() == ["MACs", "200", "M", "90", "M", "-55.0%"]
    assert lines[3] == ("parameters    3 M        1.5 M      -50.0%; on disk 12 MB -> 6 MB")
    assert lines[4].endswith("-37.5% in ONNX Runtime 1.32.0")
    groups = {one.group for one in report.layers}
    narrower = {one.group for one in report.layers if one.channels_after < one.channels_before}
    assert f"{len(narrower)} of {len(groups)} groups narrower" in lines[5]
    assert "2 layers refused (output of the network)" in lines[5]
    assert lines[6:] == [
        "deploy        checkpoints/best_pruned.ckpt (epoch 5, highest val/map50)",
        "export        python -m lightning_prune export 'outputs/a b'",
        "tables        python -m lightning_prune report 'outputs/a b'",
        "look          outputs/a b/report.html",
    ]
    starts = {line.index(line.split()[1]) for line in lines[1:]}
    assert starts == {14}


def test_a_second_metric_is_shown_where_there_is_room(folder):
    report = full()
    report.dense.latency_ms = None
    lines = summary(report, folder)
    assert len(lines) == 10
    assert [line.split()[0] for line in lines[1:4]] == ["test/map50", "test/a", "MACs"]


def test_with_channel_usage_too_there_are_ten_lines(folder):
    report = full()
    report.usage = Usage(0.0, [0], {"a": LayerUsage([8], [5], [3])})
    lines = summary(report, folder)
    assert len(lines) == 10
    labels = [line.split()[0] for line in lines[1:]]
    assert "look" not in labels  # `report` says where it is
    assert {"test/map50", "usage", "deploy", "export", "tables"} < set(labels)


def test_a_file_that_export_would_not_take_of_the_folder_is_named(folder):
    report = full()
    report.checkpoints = FILES[:2]
    file = "outputs/a b/checkpoints/last.ckpt"
    assert f"export        python -m lightning_prune export '{file}'" in summary(report, folder)


def test_of_a_trainer_of_ones_own_the_file_is_loaded_by_its_class_and_no_page_is_no_line(tmp_path):
    report = full()
    report.module = "Mine"
    lines = summary(report, tmp_path)
    file = str(tmp_path / "checkpoints/best_pruned.ckpt")  # from where the program runs
    load = f"load          lightning_prune.load_pruned(Mine, {file!r})"
    assert load in lines
    assert not [line for line in lines if line.startswith(("export", "look"))]


def test_without_a_metric_the_latest_file_of_the_cut_model_is_deployed():
    report = full()
    report.checkpoints = FILES[:2]
    assert "deploy        checkpoints/last.ckpt (epoch 6, the latest)" in summary(report)
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
