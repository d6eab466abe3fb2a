import itertools

import numpy as np
import pytest

from lightning_prune.report.norm_overview import norm_overview
from tests.report.norms import content, history


@pytest.mark.parametrize(("groups", "epochs"), [(1, 2), (60, 15), (5, 40)])
def test_maps_hold_every_layer_and_epoch(groups: int, epochs: int):
    found = history(groups, epochs)
    analysis = content(found)
    figure = norm_overview(found, analysis, "run", "val/map50_95")
    low, mean = (axes for axes in figure.axes if axes.images)
    rows = list(analysis["groups"].values())
    np.testing.assert_allclose(low.images[0].get_array(), [row["low_channels"] for row in rows])
    norms = np.array([row["mean_norm"] for row in rows])
    np.testing.assert_allclose(mean.images[0].get_array(), norms / norms[:, :1])
    assert [label.get_text() for label in low.get_yticklabels()] == list(analysis["groups"])
    assert len(mean.texts) == (groups * epochs if epochs <= 16 else 0)


def test_sixty_layers_can_be_read():
    figure = norm_overview(history(60, 15), content(history(60, 15)), "run", "val/map50_95")
    figure.canvas.draw()
    maps = next(axes for axes in figure.axes if axes.images)
    boxes = [label.get_window_extent() for label in maps.get_yticklabels()]
    assert min(box.x0 for box in boxes) >= 0
    heights = sorted(((box.y0, box.y1) for box in boxes), reverse=True)
    assert all(upper[0] >= lower[1] - 1 for upper, lower in itertools.pairwise(heights))


def test_course_of_the_run():
    found = history()
    analysis = content(found, wanted=0.1)
    figure = norm_overview(found, analysis, "run", "val/map50_95")
    course = figure.axes[1]
    lines = {line.get_label(): line for line in course.lines}
    shares = [100 * row["low_channels"] for row in analysis["epochs"]]
    assert lines["low channels"].get_ydata().tolist() == pytest.approx(shares)
    start = lines[f"from epoch {analysis['start'] + 1}"]
    assert start.get_xdata()[0] == analysis["start"] + 1
    assert "MACs left" not in lines
    labels = [text.get_text() for text in course.get_legend().get_texts()]
    assert "val/map50_95" in labels


def test_without_a_metric_and_with_dead_groups():
    found = history()
    dead = type(found)(found.epochs, {"a": 0 * next(iter(found.norms.values()))})
    figure = norm_overview(dead, content(dead, metric=False), "run")
    figure.canvas.draw()
    assert len(figure.axes) == 4
