"""One figure of a whole regularization run: norms, low channels, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_prune.report.norm_figure import draw_histograms, draw_low_fraction
from lightning_prune.report.norm_history import NormHistory
from lightning_prune.report.selection_figure import LINE, QUIET

_ROW = 0.165
"""Height of a layer's row in inches: a line of 7 points with air around it."""
_WRITTEN = 16
"""Epochs up to which a number fits into each field of a map."""


def norm_overview(
    history: NormHistory, content: Mapping[str, Any], title: str, metric: str | None = None
) -> Figure:
    """Draw histograms of all norms, the fraction of low channels, and maps of layers and epochs.

    Norms are shown as a fraction of the largest in their group, so that layers can be compared.

    Args:
        history: The norms over the epochs, which the figure counts from 1.
        content: What ``norm_analysis`` found in them; rows with ``metric`` show that too.
        title: Title of the figure, usually the run's folder.
        metric: Name of the metric.

    Returns:
        A figure on an Agg canvas, 12 inches wide and as high as the layers need.
    """
    names = list(history.norms)
    maps = _ROW * len(names) + 0.25
    upper, gap, bottom, top = 3.6, 0.95, 0.55, 0.75
    height = top + upper + gap + maps + bottom
    figure = Figure(figsize=(12, height))
    FigureCanvasAgg(figure)
    label = min(0.33, 0.012 + 0.0054 * max(len(name) for name in names))
    above = figure.add_gridspec(
        1, 2, left=0.05, right=0.93, top=1 - top / height, bottom=1 - (top + upper) / height,
        wspace=0.16, width_ratios=(1.15, 1),
    )  # fmt: skip
    below = figure.add_gridspec(
        1, 2, left=label, right=0.99, top=(bottom + maps) / height, bottom=bottom / height,
        wspace=0.03,
    )  # fmt: skip
    left, right = (figure.add_subplot(above[0, column]) for column in (0, 1))
    relative = _relative(history)
    bounds = np.full(len(history), content["threshold"])
    epochs = [epoch + 1 for epoch in history.epochs]
    draw_histograms(left, relative, bounds, epochs)
    left.set(xlabel="norm, as a fraction of the largest in its group", ylabel="epoch",
             title=f"All {history.channels} channels by their norm")  # fmt: skip
    _draw_course(right, content, epochs, metric)
    low = np.array([content["groups"][name]["low_channels"] for name in names])
    means = np.array([content["groups"][name]["mean_norm"] for name in names])
    start = np.where(means[:, :1] == 0, 1, means[:, :1])
    one, two = (figure.add_subplot(below[0, column]) for column in (0, 1))
    _draw_map(one, low, epochs, "Reds", "Low channels (%)")
    _draw_map(two, means / start, epochs, "Blues_r", "Mean norm (% of the first epoch)")
    one.set_yticks(range(len(names)), names, fontsize=7)
    two.set_yticks([])
    figure.suptitle(title, fontsize=12, y=1 - 0.25 / height)
    return figure


def _relative(history: NormHistory) -> list[np.ndarray]:
    """Return for each epoch the norms of all channels, each divided by its group's largest."""
    rows: list[np.ndarray] = []
    for place in range(len(history)):
        parts = [norms[place].double().cpu().numpy() for norms in history.norms.values()]
        rows.append(np.concatenate([part / (part.max() or 1.0) for part in parts]))
    return rows


def _draw_course(
    axes: Axes, content: Mapping[str, Any], epochs: Sequence[int], metric: str | None
) -> None:
    """Draw low channels, MACs without them and the metric over the epochs."""
    rows = content["epochs"]
    draw_low_fraction(axes, np.array([row["low_channels"] for row in rows]), epochs)
    axes.set_ylim(0, 102)
    axes.set(ylabel="%", title="Low channels, and what the model would be without them")
    axes.lines[0].set_label("low channels")
    wanted = content["wanted"]
    axes.axhline(
        100 * wanted, color="black", linewidth=1, dashes=(2, 2), label=f"wanted {wanted:.0%}"
    )
    if all(row["macs"] is not None for row in rows):
        axes.plot(epochs, [100 * row["macs"] for row in rows], color=LINE, label="MACs left")
    if content["start"] is not None:
        axes.axvline(content["start"] + 1, color=QUIET, linewidth=6, alpha=0.4,
                     label=f"from epoch {content['start'] + 1}")  # fmt: skip
    lines = [*axes.get_legend_handles_labels()]
    known = [(row["epoch"] + 1, row["metric"]) for row in rows if row.get("metric") is not None]
    if metric is not None and known:
        other = axes.twinx()
        other.plot(*zip(*known, strict=True), color="#edae49", label=metric)
        other.set_ylabel(metric, fontsize=8)
        other.set_ylim(bottom=0)
        other.spines[["top", "left"]].set_visible(False)
        more = other.get_legend_handles_labels()
        lines = [lines[0] + more[0], lines[1] + more[1]]
    axes.legend(*lines, loc="center left", fontsize=8, framealpha=0.8)


def _draw_map(
    axes: Axes, values: np.ndarray, epochs: Sequence[int], colours: str, title: str
) -> None:
    """Draw one field per layer and epoch, with its number where there is room."""
    axes.imshow(values, aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    if len(epochs) <= _WRITTEN:
        dark = values > 0.6 if colours == "Reds" else values < 0.4
        for (row, column), value in np.ndenumerate(values):
            if value > 0:
                axes.text(column, row, _percent(value), ha="center", va="center", fontsize=6,
                          color="white" if dark[row, column] else "black")  # fmt: skip
    step = max(1, len(epochs) // 16)
    axes.set_xticks(range(0, len(epochs), step), [str(e) for e in epochs[::step]], fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("epoch")
    axes.set_title(title, fontsize=10)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}" if value >= 0.005 else "<1"
