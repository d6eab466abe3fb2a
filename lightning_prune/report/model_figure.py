"""One figure of the whole run: what every layer lost, and what the model gained."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_prune.report.report_data import LayerRow, ModelFacts, ReportData
from lightning_prune.report.selection_figure import KEPT, LINE, QUIET

_ROW = 0.165
"""Height of a layer's row in inches: a line of 7 points with air around it."""


def model_figure(content: ReportData) -> Figure:
    """Draw the overview of a pruning report.

    Left: channels before and after, layer by layer, front to back. Right: MACs, parameters,
    latency and metrics of the dense model beside those of the pruned one, as far as they are
    known; of metrics that were measured in both the test and the validation, the test's.

    Args:
        content: The report.

    Returns:
        A figure on an Agg canvas, 12 inches wide and as high as the layers need.

    Raises:
        ValueError: the report names no layer.
    """
    rows = content.layers
    if not rows:
        raise ValueError("the report names no layer: there is nothing to draw")
    height = max(4.5, 1.2 + _ROW * len(rows))
    figure = Figure(figsize=(12, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.5, 1))
    left, right = (figure.add_subfigure(grid[0, column]) for column in (0, 1))
    _draw_layers(left.subplots(), rows)
    pairs = _pairs(content.dense, content.pruned)
    if pairs:
        # At the top of the page, however long the list of layers is.
        panels = right.subplots(max(len(pairs), int(height / 1.4)), 1, squeeze=False)[:, 0]
        for axes, pair in zip(panels, pairs, strict=False):
            _draw_pair(axes, *pair)
        for axes in panels[len(pairs) :]:
            axes.set_axis_off()
    return figure


def _pairs(
    dense: ModelFacts, pruned: ModelFacts
) -> list[tuple[str, float | None, float | None, str]]:
    """Return (name, dense, pruned, unit) of everything that at least one side knows."""
    found: list[tuple[str, float | None, float | None, str]] = []
    sizes = (
        ("MACs", dense.macs, pruned.macs, 1e6, "million"),
        ("parameters", dense.parameters, pruned.parameters, 1e6, "million"),
        ("latency", dense.latency_ms, pruned.latency_ms, 1.0, "ms"),
    )
    for name, before, after, unit, label in sizes:
        if before is not None or after is not None:
            both = [None if value is None else value / unit for value in (before, after)]
            found.append((name, both[0], both[1], label))
    names = {*dense.metrics, *pruned.metrics}
    tested = {name.removeprefix("test/") for name in names if name.startswith("test/")}
    for name in sorted(names):
        if not (name.startswith("val/") and name.removeprefix("val/") in tested):
            found.append((name, dense.metrics.get(name), pruned.metrics.get(name), ""))
    return found


def _draw_layers(axes: Axes, rows: Sequence[LayerRow]) -> None:
    """Draw two bars per layer over one another, and how many stay."""
    places = np.arange(len(rows))
    before = np.array([row.channels_before for row in rows])
    after = np.array([row.channels_after for row in rows])
    axes.barh(places, before, color=QUIET, alpha=0.55, height=0.78, label="before")
    axes.barh(places, after, color=LINE, height=0.78, label="after")
    room = 0.01 * before.max()
    for place, row in enumerate(rows):
        text = f"{row.channels_after}/{row.channels_before}"
        marks = {"fallback": " (by magnitude)", "left": " (left alone)"}
        text += marks.get(row.status, "")
        axes.text(before[place] + room, place, text, va="center", fontsize=6.5)
    axes.set_yticks(places, [row.name for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.14 * before.max())
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.set(xlabel="channels", title="Channels of every layer, front to back")
    axes.legend(loc="lower right", fontsize=8)


def _draw_pair(axes: Axes, name: str, dense: float | None, pruned: float | None, unit: str) -> None:
    """Draw one quantity of both models."""
    known = [(label, value, colour) for label, value, colour in
             (("dense", dense, QUIET), ("pruned", pruned, KEPT)) if value is not None]  # fmt: skip
    places = range(len(known))
    axes.barh(places, [v for _, v, _ in known], color=[c for _, _, c in known], height=0.7)
    largest = max((abs(value) for _, value, _ in known), default=0.0) or 1.0
    for place, (_, value, _) in enumerate(known):
        axes.text(max(value, 0) + 0.015 * largest, place, f"{value:.4g} {unit}", va="center",
                  fontsize=8)  # fmt: skip
    title = name
    if dense and pruned is not None:
        title += f": {pruned / dense - 1:+.1%}" if unit else f": {pruned - dense:+.4f}"
    axes.set_yticks(places, [label for label, _, _ in known], fontsize=8)
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * largest)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(title, fontsize=9, loc="left")
