"""What both models make of a few samples: boxes on images, rates of cells."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

VERSION = 1
MOST_IMAGES = MOST_TRACES = 6
_WIDTH, _HEIGHT = 360, 110


def sample_figures(
    samples: Mapping[str, Any] | None, cells: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a page shows of ``samples.json``; what there is not is empty.

    ``images``: of each image its size, its data URI and the boxes of both models. ``traces``: of
    each cell a chart of rates. ``cells``: a chart of all cells' bits per spike.

    Args:
        samples: Content of ``report_data/samples.json``, or None.
        cells: Content of ``bits_per_spike_paired.json``, or None.
    """
    found: dict[str, Any] = {"images": [], "traces": [], "cells": "", "cell_facts": {}}
    if samples is not None and samples.get("version") == VERSION:
        if samples["kind"] == "detection":
            found["images"] = samples["images"][:MOST_IMAGES]
        elif samples["kind"] == "neural":
            found["traces"] = [
                {"name": one["name"], "svg": trace_chart(one)}
                for one in samples["cells"][:MOST_TRACES]
            ]
    if cells is not None and cells.get("differences"):
        found["cells"] = cell_chart(cells["differences"])
        found["cell_facts"] = cells
    return found


def trace_chart(cell: Mapping[str, Any]) -> Markup:
    """Draw recorded counts as an area, and the rates of both models as lines.

    Args:
        cell: ``name``, ``recorded``, ``pruned`` and, where known, ``dense``: T values each.
    """
    recorded, steps = cell["recorded"], len(cell["recorded"])
    models = {key: cell[key] for key in ("dense", "pruned") if cell.get(key)}
    top = max([1e-9, *recorded, *(value for line in models.values() for value in line)])
    width = _WIDTH / max(steps, 1)

    def y(value: float) -> str:
        return f"{_HEIGHT * (1 - value / top):.1f}"

    area = "".join(f"H{n * width:.1f}V{y(v)}H{(n + 1) * width:.1f}" for n, v in enumerate(recorded))
    parts = [f'<path class="recorded" d="M0 {_HEIGHT}{area}V{_HEIGHT}Z"/>']
    for name, line in models.items():
        points = " ".join(f"{(n + 0.5) * width:.1f},{y(value)}" for n, value in enumerate(line))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    label = (
        f"{cell['name']}: recorded spikes and predicted rates in {steps} frames, up to {top:.3g}"
    )
    return Markup(
        f'<svg class="trace" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" data-top="{top:.9g}" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def cell_chart(differences: Sequence[Sequence[float | None]]) -> Markup:
    """Draw by how much each cell gained or lost, from the largest loss to the largest gain.

    Args:
        differences: Bits per spike of pruned less dense, session by session.
    """
    values = sorted(value for session in differences for value in session if value is not None)
    if not values:
        return Markup("")
    largest = max(abs(values[0]), abs(values[-1]), 1e-9)
    width, middle = _WIDTH / len(values), _HEIGHT / 2
    bars = []
    for number, value in enumerate(values):
        tall = abs(value) / largest * (middle - 4)
        top = middle - tall if value > 0 else middle
        kind = "gained" if value > 0 else "lost"
        bars.append(
            f'<rect class="{kind}" x="{number * width:.2f}" y="{top:.2f}" '
            f'width="{width * 0.86:.2f}" height="{tall:.2f}"><title>{value:+.4f}</title></rect>'
        )
    lost = sum(value < 0 for value in values)
    label = f"bits per spike of {len(values)} cells, pruned less dense: {lost} lost"
    return Markup(
        f'<svg class="cells" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'data-largest="{largest:.9g}" '
        f'aria-label="{escape(label)}"><path class="grid" d="M0 {middle}H{_WIDTH}"/>'
        f"{''.join(bars)}</svg>"
    )
