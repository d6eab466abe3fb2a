import pytest

from lightning_prune.report.norm_comparison import norm_comparison
from tests.report.norms import content, history


def test_one_line_per_run():
    contents = [content(history(3, epochs), wanted=0.2) for epochs in (4, 6)]
    figure = norm_comparison(["0 reg=1", "1 reg=2"], contents)
    low, mean, metric = figure.axes
    for axes, key, scale in (
        (low, "low_channels", 100),
        (mean, "mean_norm", 1),
        (metric, "metric", 1),
    ):
        lines = {line.get_label(): line for line in axes.lines}
        for label, found in zip(("0 reg=1", "1 reg=2"), contents, strict=True):
            expected = [scale * row[key] for row in found["epochs"]]
            assert lines[label].get_ydata().tolist() == pytest.approx(expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0 reg=1", "1 reg=2"]


def test_without_a_metric_there_are_two_panels():
    assert len(norm_comparison(["a"], [content(history(), metric=False)]).axes) == 2


def test_many_runs_differ_in_colour_or_dashes():
    labels = [str(number) for number in range(9)]
    axes = norm_comparison(labels, [content(history(1))] * 9).axes[1]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 9
