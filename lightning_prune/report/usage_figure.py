"""One figure of the channels that were used: layer by layer, epoch by epoch."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_prune.report.report_data import Usage
from lightning_prune.report.selection_figure import KEPT

_ROW = 0.165
"""Height of a layer's row in inches: a line of 7 points with air around it."""
_FLOOR = 5.0
"""Lowest upper end of the scale of unused channels, in percent: little must not look like much."""


def usage_figure(usage: Usage) -> Figure:
    """Draw the fraction of unused channels of every layer over the epochs, and the resets.

    A row is a layer, front to back; the darker a cell, the more of its channels were unused since
    the last reset; a red dot marks an epoch at whose start channels of the layer were reset.

    Args:
        usage: What the report holds of it.

    Returns:
        A figure on an Agg canvas, 10 inches wide and as high as the layers need.

    Raises:
        ValueError: no epoch or no layer was tracked.
    """
    epochs, layers = usage.epochs, usage.layers
    if not epochs or not layers:
        raise ValueError("no usage was tracked: there is nothing to draw")
    figure = Figure(figsize=(10, max(3.6, 1.6 + _ROW * len(layers))), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(
        2, 1, sharex=True, height_ratios=(1.1, max(2.0, _ROW * len(layers)))
    )
    numbers = [(row.channels, row.used, row.reset) for row in layers.values()]
    channels, used, reset = np.array(numbers, dtype=float).transpose(1, 0, 2)
    unused = 100 * (channels - used) / np.maximum(channels, 1)
    image = lower.imshow(
        unused, cmap="Blues", vmin=0, vmax=max(_FLOOR, float(unused.max())), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    handles = _draw_total(upper, channels, used, reset)
    rows, columns = np.nonzero(reset)
    if len(rows):
        handles += [
            lower.scatter(columns, rows, s=14, color=KEPT, edgecolors="white", linewidths=0.5,
                          label="layer with channels that were reset")
        ]  # fmt: skip
    upper.legend(
        handles=handles, fontsize=8, frameon=False, ncols=3, loc="lower left",
        bbox_to_anchor=(0, 0.97),
    )  # fmt: skip
    lower.set_yticks(range(len(layers)), list(layers), fontsize=7)
    places = MaxNLocator(integer=True, nbins=15).tick_values(0, max(1, len(epochs) - 1))
    ticks = [int(place) for place in places if 0 <= place < len(epochs)]
    lower.set_xticks(ticks, [str(epochs[place] + 1) for place in ticks])
    lower.set_xlim(-0.5, len(epochs) - 0.5)
    lower.set_xlabel("epoch")
    figure.colorbar(image, ax=lower, label="unused channels (%)", pad=0.01, fraction=0.04)
    figure.suptitle(
        f"Channels whose mean magnitude never exceeded {usage.threshold:g} since the last reset",
        fontsize=11,
    )
    return figure


def _draw_total(axes: Axes, channels: np.ndarray, used: np.ndarray, reset: np.ndarray) -> list[Any]:
    """Draw how many channels were unused and how many were reset; return what the legend names."""
    places = np.arange(channels.shape[1])
    handles: list[Any] = axes.plot(
        places, (channels - used).sum(axis=0), color="tab:blue", marker="o", markersize=3,
        label="unused at the end of the epoch",
    )  # fmt: skip
    if reset.any():
        width = min(0.35, 0.02 * len(places))
        handles += [
            axes.bar(places, reset.sum(axis=0), color=KEPT, width=width, label="reset at its start")
        ]
    axes.set_ylabel("channels")
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return handles
