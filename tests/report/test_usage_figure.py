import itertools
from dataclasses import replace

import numpy as np
import pytest

from lightning_prune.report.figures import write_figure
from lightning_prune.report.report_data import LayerUsage, Usage
from lightning_prune.report.usage_figure import usage_figure


def usage(layers=3, epochs=4, every=2, start=0):
    """Each layer loses a channel in every epoch, and gets all back where they are reset."""
    rows = {}
    for number in range(layers):
        row = LayerUsage([], [], [])
        dead = 0
        for epoch in range(epochs):
            due = bool(epoch) and epoch % every == 0 and number % 2 == 0
            row.reset.append(dead if due else 0)
            dead = 1 if due else min(dead + 1, 8 + number)
            row.channels.append(8 + number)
            row.used.append(8 + number - dead)
        rows[f"network.backbone.stage{number}.bottlenecks.0.conv1.conv"] = row
    return Usage(1e-6, list(range(start, start + epochs)), rows)


def panels(figure):
    upper, lower, bar = figure.axes
    return upper, lower, bar


def texts(labels):
    return [label.get_text() for label in labels]


@pytest.mark.parametrize(("layers", "epochs"), [(1, 1), (3, 4), (60, 30)])
def test_cells_are_the_shares_of_unused_channels(layers, epochs):
    content = usage(layers, epochs)
    _, lower, _ = panels(usage_figure(content))
    (image,) = lower.images
    cells = np.asarray(image.get_array())
    assert cells.shape == (layers, epochs)
    for line, row in zip(cells, content.layers.values(), strict=True):
        expected = [100 * (c - u) / c for c, u in zip(row.channels, row.used, strict=True)]
        np.testing.assert_allclose(line, expected)
    assert texts(lower.get_yticklabels()) == list(content.layers)
    top, bottom = lower.get_ylim()[::-1]
    assert top < bottom  # the first layer stands at the top
    assert image.get_clim() == (0.0, max(5.0, cells.max()))


def test_the_upper_panel_sums_over_the_layers():
    content = usage(3, 5)
    upper, _, _ = panels(usage_figure(content))
    rows = content.layers.values()
    (line,) = upper.lines
    assert line.get_ydata().tolist() == [
        sum(row.channels[e] - row.used[e] for row in rows) for e in range(5)
    ]
    (bars,) = upper.containers
    assert [bar.get_height() for bar in bars] == [
        sum(row.reset[e] for row in rows) for e in range(5)
    ]


def test_dots_mark_where_channels_were_reset():
    content = usage(4, 7)
    _, lower, _ = panels(usage_figure(content))
    (dots,) = lower.collections
    found = {(int(x), int(y)) for x, y in dots.get_offsets()}
    assert found == {
        (epoch, number)
        for number, row in enumerate(content.layers.values())
        for epoch, reset in enumerate(row.reset)
        if reset
    }
    assert found == {(2, 0), (4, 0), (6, 0), (2, 2), (4, 2), (6, 2)}


def test_the_legend_names_what_is_there():
    upper, _, _ = panels(usage_figure(usage()))
    assert texts(upper.get_legend().get_texts()) == [
        "unused at the end of the epoch", "reset at its start",
        "layer with channels that were reset",
    ]  # fmt: skip
    upper, lower, bar = panels(usage_figure(usage(every=9)))
    assert texts(upper.get_legend().get_texts()) == ["unused at the end of the epoch"]
    assert not upper.containers
    assert not lower.collections
    assert bar.get_ylabel() == "unused channels (%)"


@pytest.mark.parametrize(
    ("start", "epochs", "expected"),
    [(0, 1, ["1"]), (7, 1, ["8"]), (3, 4, ["4", "5", "6", "7"]), (10, 30, None)],
)
def test_epochs_are_those_of_the_run(start, epochs, expected):
    _, lower, _ = panels(usage_figure(usage(2, epochs, start=start)))
    labels = texts(lower.get_xticklabels())
    if expected is not None:
        assert labels == expected
    places = [int(place) for place in lower.get_xticks()]
    assert [int(label) - start - 1 for label in labels] == places
    assert len(set(places)) == len(places) <= 16
    assert lower.get_xlim() == (-0.5, epochs - 0.5)


def test_names_of_sixty_layers_do_not_touch():
    figure = usage_figure(usage(60, 30))
    figure.canvas.draw()
    _, lower, _ = panels(figure)
    boxes = [label.get_window_extent() for label in lower.get_yticklabels()]
    heights = sorted(((box.y0, box.y1) for box in boxes), reverse=True)
    assert all(upper[0] >= lower[1] - 1 for upper, lower in itertools.pairwise(heights))
    width, height = figure.canvas.get_width_height()
    assert all(box.x0 >= 0 for box in boxes)
    assert (width, height) == (1000, int(100 * (1.6 + 0.165 * 60)))


@pytest.mark.parametrize("layers", [1, 60])
def test_everything_lies_within_the_picture(layers):
    figure = usage_figure(usage(layers, 12))
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    title = figure._suptitle.get_window_extent()
    assert title.y1 <= height + 1
    assert "1e-06 since the last reset" in figure._suptitle.get_text()
    assert panels(figure)[0].get_legend().get_window_extent().y1 <= title.y0 + 1


def test_nothing_unused_is_a_pale_picture(tmp_path):
    content = usage(2, 3)
    for row in content.layers.values():
        row.used, row.reset = list(row.channels), [0, 0, 0]
    content.layers["not tracked"] = LayerUsage([0] * 3, [0] * 3, [0] * 3)
    figure = usage_figure(content)
    upper, lower, _ = panels(figure)
    assert np.asarray(lower.images[0].get_array()).tolist() == [[0.0] * 3] * 3
    assert lower.images[0].get_clim() == (0.0, 5.0)
    assert upper.get_ylim() == (0.0, 1.0)
    write_figure(tmp_path / "usage.png", figure)
    assert (tmp_path / "usage.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("empty", [{"epochs": []}, {"layers": {}}])
def test_nothing_to_draw(empty):
    with pytest.raises(ValueError, match="no usage was tracked: there is nothing to draw"):
        usage_figure(replace(usage(), **empty))
