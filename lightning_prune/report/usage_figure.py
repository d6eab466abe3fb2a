"""One figure of the channels that were used: layer by layer, epoch by epoch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_prune.report.selection_figure import KEPT

_ROW = 0.165
"""Height of a layer's row in inches: a line of 7 points with air around it."""
_FLOOR = 0.5
"""Lowest upper end of the scale of unused channels, in percent: nothing must look like much."""


def usage_figure(usage: Mapping[str, Any]) -> Figure:
    """Draw the share of unused channels of every layer over the epochs, and where channels reset.

    A row is a layer, front to back; the darker a cell, the more of its channels were unused since
    the last reset; a red dot marks an epoch at whose start channels of the layer were reset.

    Args:
        usage: ``threshold``, ``epochs`` and ``layers`` as in ``pruning_report.json``.

    Returns:
        A figure on an Agg canvas, 10 inches wide and as high as the layers need.

    Raises:
        ValueError: no epoch or no layer was tracked.
    """
    epochs, layers = usage["epochs"], usage["layers"]
    if not epochs or not layers:
        raise ValueError("no usage was tracked: there is nothing to draw")
    figure = Figure(figsize=(10, max(3.0, 1.6 + _ROW * len(layers))), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(
        2, 1, sharex=True, height_ratios=(1.1, max(1.4, _ROW * len(layers)))
    )
    channels, used, reset = (
        np.array([row[key] for row in layers.values()], dtype=float)
        for key in ("channels", "used", "reset")
    )
    edges = np.arange(len(epochs))
    _draw_total(upper, edges, channels, used, reset)
    unused = 100 * (1 - used / np.maximum(channels, 1))
    picture = lower.imshow(
        unused, cmap="Blues", vmin=0, vmax=max(_FLOOR, float(unused.max())), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    rows, columns = np.nonzero(reset)
    lower.scatter(columns, rows, s=9, color=KEPT, label="channels were reset", linewidths=0)
    lower.set_yticks(range(len(layers)), list(layers), fontsize=7)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=15))
    ticks = [int(t) for t in lower.get_xticks() if 0 <= t < len(epochs)]
    lower.set_xticks(ticks, [str(epochs[t]) for t in ticks])
    lower.set_xlim(-0.5, len(epochs) - 0.5)
    lower.set_xlabel("epoch")
    figure.colorbar(picture, ax=lower, label="unused channels (%)", pad=0.01, fraction=0.04)
    figure.suptitle(
        f"Channels whose mean magnitude never exceeded {usage['threshold']:g} since the last reset",
        fontsize=11,
    )
    return figure


def _draw_total(
    axes: Axes, places: np.ndarray, channels: np.ndarray, used: np.ndarray, reset: np.ndarray
) -> None:
    """Draw how many channels were unused and how many were reset, over all layers."""
    axes.plot(places, (channels - used).sum(axis=0), color="tab:blue", marker="o", markersize=3,
              label="unused at the end of the epoch")  # fmt: skip
    axes.bar(places, reset.sum(axis=0), color=KEPT, width=0.35, label="reset at its start")
    axes.set_ylabel("channels")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.97))
