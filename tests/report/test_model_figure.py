import itertools

import numpy as np
import pytest

from lightning_prune.report.model_figure import model_figure
from lightning_prune.report.report_data import ModelFacts
from tests.report.reports import content, row


def panels(figure):
    layers, *pairs = (axes for axes in figure.axes if axes.axison)
    return layers, {axes.get_title(loc="left").split(":")[0]: axes for axes in pairs}


@pytest.mark.parametrize("layers", [1, 3, 60])
def test_bars_are_as_long_as_the_layers_are_wide(layers):
    report = content(layers)
    figure = model_figure(report)
    axes, _ = panels(figure)
    before, after = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert before == [line.channels_before for line in report.layers]
    assert after == [line.channels_after for line in report.layers]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [line.name for line in report.layers]
    top, bottom = axes.get_ylim()[::-1]
    assert top < bottom  # the first layer stands at the top


def test_names_of_sixty_layers_do_not_touch():
    figure = model_figure(content(60))
    figure.canvas.draw()
    axes, _ = panels(figure)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    heights = sorted(((box.y0, box.y1) for box in boxes), reverse=True)
    assert all(upper[0] >= lower[1] - 1 for upper, lower in itertools.pairwise(heights))
    assert np.asarray(figure.canvas.buffer_rgba()).shape[1] == 1200


def test_both_models_side_by_side():
    _, pairs = panels(model_figure(content()))
    assert list(pairs) == ["MACs", "parameters", "latency", "test/map50"]
    values = {name: [bar.get_width() for bar in axes.patches] for name, axes in pairs.items()}
    assert values["MACs"] == [200.0, 90.0]
    assert values["latency"] == [12.0, 7.5]
    assert pairs["MACs"].get_title(loc="left") == "MACs: -55.0%"
    assert pairs["test/map50"].get_title(loc="left").endswith(": -0.0050")


def test_what_is_unknown_is_left_out():
    report = content()
    report.pruned = ModelFacts()
    report.dense.latency_ms, report.dense.metrics = None, {"val/map50": 0.9}
    _, pairs = panels(model_figure(report))
    assert list(pairs) == ["MACs", "parameters", "val/map50"]
    assert [bar.get_width() for bar in pairs["MACs"].patches] == [200.0]
    report.dense = ModelFacts()
    layers, pairs = panels(model_figure(report))
    assert not pairs
    assert layers.containers


def test_layers_that_were_not_chosen_by_clusters_are_marked():
    report = content(1)
    report.layers += [row("b", status="fallback"), row("c", 3, 3, status="left")]
    texts = [text.get_text() for text in panels(model_figure(report))[0].texts]
    assert texts == ["8/16", "8/16 (by magnitude)", "3/3 (left alone)"]


def test_a_metric_of_zero_is_no_reason_to_divide():
    report = content()
    report.dense.metrics = report.pruned.metrics = {"test/map50": 0.0}
    model_figure(report).canvas.draw()


def test_an_empty_report_has_no_figure():
    with pytest.raises(ValueError, match="names no layer"):
        model_figure(content(0))
