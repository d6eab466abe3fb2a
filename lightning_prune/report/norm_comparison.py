"""One figure of several regularization runs side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_COLOURS = ("#00798c", "#d1495b", "#edae49", "#66a182", "#2e4057", "#8d96a3")


def norm_comparison(labels: Sequence[str], contents: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw low channels, mean norm and metric over the epochs, one line per run.

    Args:
        labels: Name of each run.
        contents: What ``norm_analysis`` found in each; rows with ``metric`` show that too.

    Returns:
        A figure of 12 by 4.2 inches and a line for each run's name, on an Agg canvas.
    """
    panels = [("low_channels", "low channels (%)", 100.0), ("mean_norm", "mean norm", 1.0)]
    if any(row.get("metric") is not None for content in contents for row in content["epochs"]):
        panels.append(("metric", contents[0]["metric"] or "metric", 1.0))
    legend = 0.24 * len(labels) + 0.2
    height = 4.2 + legend
    figure = Figure(figsize=(12, height))
    FigureCanvasAgg(figure)
    grid = {"left": 0.055, "right": 0.985, "bottom": (legend + 0.55) / height, "top": 0.95}
    drawn = figure.subplots(1, len(panels), squeeze=False, gridspec_kw={**grid, "wspace": 0.26})[0]
    for axes, (key, name, scale) in zip(drawn, panels, strict=True):
        _draw(axes, labels, contents, key, scale)
        axes.set(xlabel="epoch", ylabel=name)
    handles = drawn[0].get_legend_handles_labels()
    figure.legend(*handles, loc="lower left", bbox_to_anchor=(0.045, 0.0), fontsize=9,
                  frameon=False)  # fmt: skip
    return figure


def _draw(
    axes: Axes,
    labels: Sequence[str],
    contents: Sequence[Mapping[str, Any]],
    key: str,
    scale: float,
) -> None:
    for place, (label, content) in enumerate(zip(labels, contents, strict=True)):
        rows = [row for row in content["epochs"] if row.get(key) is not None]
        colour = _COLOURS[place % len(_COLOURS)]
        style = ("-", "--", ":")[place // len(_COLOURS) % 3]
        epochs = [row["epoch"] + 1 for row in rows]
        axes.plot(epochs, [scale * row[key] for row in rows], style, color=colour, marker="o",
                  markersize=3, label=label)  # fmt: skip
        start = [row for row in rows if row["epoch"] == content["start"]]
        if key == "low_channels" and start:
            axes.plot(start[0]["epoch"] + 1, scale * start[0][key], "o", color=colour,
                      markersize=10, markerfacecolor="none")  # fmt: skip
    if key == "low_channels":
        for wanted in {content["wanted"] for content in contents}:
            axes.axhline(scale * wanted, color="black", linewidth=1, dashes=(2, 2))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
