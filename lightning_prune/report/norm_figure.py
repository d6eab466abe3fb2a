"""One figure per group: how the norms of its channels moved over the epochs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from torch import Tensor

from lightning_prune.report.selection_figure import KEPT, LINE, QUIET

_RIDGES = 12
"""Epochs whose histograms can be told apart in one picture."""
_FLOOR = 1e-4
"""Norms below this fraction of the largest are in the lowest bin: the axis is logarithmic."""


def norm_figure(norms: Tensor, epochs: Sequence[int], threshold: float, title: str) -> Figure:
    """Draw histograms of a group's norms, epoch under epoch, and how they moved.

    Low channels are red. Of many epochs the first, the last and some between have a histogram.

    Args:
        norms: (E, C) norms of the channels.
        epochs: The E epochs, 0-based; the figure counts them from 1.
        threshold: A channel is low below this fraction of the largest norm at that epoch.
        title: Title of the figure, usually the group's name.

    Returns:
        A figure of 10 by 4.5 inches on an Agg canvas.
    """
    values = norms.detach().cpu().double().numpy()
    epochs = [epoch + 1 for epoch in epochs]
    bounds = threshold * values.max(axis=1)
    figure = Figure(figsize=(10, 4.5))
    FigureCanvasAgg(figure)
    # Fixed places: a layout engine would double the time of a figure.
    grid = figure.add_gridspec(
        2, 2, width_ratios=(1.25, 1), left=0.065, right=0.985, bottom=0.11, top=0.86, wspace=0.17,
        hspace=0.12,
    )  # fmt: skip
    left = figure.add_subplot(grid[:, 0])
    upper, lower = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    draw_histograms(left, list(values), bounds, epochs)
    left.set(xlabel="norm of a channel", ylabel="epoch", title="Channels by their norm")
    _draw_range(upper, values, bounds, epochs)
    draw_low_fraction(lower, (values < bounds[:, None]).mean(axis=1), epochs)
    figure.suptitle(f"{title}: {values.shape[1]} channels", fontsize=12)
    return figure


def draw_histograms(
    axes: Axes, rows: Sequence[np.ndarray], bounds: np.ndarray, epochs: Sequence[int]
) -> None:
    """Draw one histogram per epoch, the first on top; what lies below its bound is red.

    Args:
        axes: Where to draw; its x axis becomes logarithmic.
        rows: E vectors of norms.
        bounds: (E,) norm below which a channel is low.
        epochs: The E epochs.
    """
    shown = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _RIDGES)).round().astype(int))
    largest = max(float(rows[place].max()) for place in shown) or 1.0
    smallest = min(float(rows[place].min()) for place in shown)
    smallest = max(min(smallest, float(bounds.min()) / 1.5), _FLOOR * largest)
    edges = np.geomspace(smallest * 0.95, largest * 1.05, 91)
    middle = np.sqrt(edges[:-1] * edges[1:])
    counts = [np.histogram(np.maximum(rows[place], smallest), edges)[0] for place in shown]
    highest = max(int(count.max()) for count in counts) or 1
    for line, (place, count) in enumerate(zip(shown, counts, strict=True)):
        # Square roots: a few low channels must be seen beside a crowd of others.
        height = line - 0.92 * np.sqrt(count / highest)
        low = middle < bounds[place]
        for flags, colour in ((low, KEPT), (~low, LINE)):
            axes.stairs(
                np.where(flags, height, line), edges, baseline=line, fill=True, color=colour
            )
        axes.axhline(line, color=QUIET, linewidth=0.6)
        bound = bounds[place]
        axes.plot([bound, bound], [line, line - 0.92], color="black", linewidth=1, dashes=(2, 2))
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    _label_decades(axes.xaxis, edges[0], edges[-1])
    axes.set_ylim(len(shown) - 0.85, -1.05)
    axes.set_yticks(range(len(shown)), [str(epochs[place]) for place in shown], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_low_fraction(axes: Axes, fraction: np.ndarray, epochs: Sequence[int]) -> None:
    """Draw the fraction of low channels over the epochs, in percent."""
    axes.plot(epochs, 100 * fraction, color=KEPT, marker="o", markersize=3.5, clip_on=False)
    axes.set_ylim(0, max(10.0, min(105.0, 115 * float(fraction.max()))))
    axes.set(xlabel="epoch", ylabel="low channels (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_range(axes: Axes, values: np.ndarray, bounds: np.ndarray, epochs: Sequence[int]) -> None:
    """Draw how the largest, the middle and the smallest norm moved."""
    shown = np.maximum(values, _FLOOR * values.max()) if values.max() else values + 1.0
    axes.fill_between(epochs, *np.quantile(shown, (0.25, 0.75), axis=1), color=LINE, alpha=0.2,
                      linewidth=0, label="middle half")  # fmt: skip
    axes.plot(epochs, shown.max(axis=1), color=QUIET, label="largest, smallest")
    axes.plot(epochs, np.median(shown, axis=1), color=LINE, label="median")
    axes.plot(epochs, shown.min(axis=1), color=QUIET)
    axes.plot(epochs, bounds, color="black", linewidth=1, dashes=(2, 2), label="low below")
    axes.set_yscale("log")
    _label_decades(axes.yaxis, *axes.get_ylim())
    axes.set_ylabel("norm")
    axes.tick_params(labelbottom=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, fontsize=7, frameon=False,
                columnspacing=1, handlelength=1.5, borderaxespad=0.2)  # fmt: skip


def _label_decades(axis: Axis, lowest: float, highest: float) -> None:
    """Label a logarithmic axis at 1, 2 and 5, at each decade only where these would be many."""
    decades = 10.0 ** np.arange(np.floor(np.log10(lowest)), np.ceil(np.log10(highest)) + 1)
    for steps in ((1,), (1, 2, 5)):
        ticks = np.array([step * decade for decade in decades for step in steps])
        ticks = ticks[(ticks >= lowest) & (ticks <= highest)]
        if steps == (1,) or len(ticks) <= 7:
            axis.set_ticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
