"""`compare.html` and `sweep.html`: several runs on one page."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup, escape

from lightning_prune.files import write_bytes
from lightning_prune.report.page.comparison import Comparison, Row, compare
from lightning_prune.report.page.numbers import metric_text, ticks
from lightning_prune.report.page.render import render

COMPARE, SWEEP = "compare.html", "sweep.html"
_WIDTH, _HEIGHT = 520, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 14, 44


def write_comparison(path: Path, comparison: Comparison, heading: str) -> Path:
    """Write a page of several runs, whole or not at all; return its path."""
    page = render(
        "comparison.html.jinja",
        title=path.resolve().parent.name,
        heading=heading,
        comparison=comparison,
        short=comparison.short_keys,
        charts=charts(comparison),
        data=comparison.to_plain(),
    )
    write_bytes(path, page.encode())
    return path


def write_sweep_page(folder: Path, jobs: Sequence[Path]) -> Path:
    """Write ``sweep.html`` into a sweep's folder; return its path.

    Args:
        folder: Of the sweep.
        jobs: Folders of its jobs.
    """
    return write_comparison(folder / SWEEP, compare(jobs, folder), "Sweep")


def charts(comparison: Comparison) -> list[tuple[str, Markup]]:
    """Return the metric against MACs and against time, where at least two runs know both."""
    found = []
    for title, cost, front in (
        ("MACs that remain, % of the dense model's", "macs_fraction", "front"),
        ("milliseconds of a forward pass", "latency_ms", "fast_front"),
    ):
        rows = [
            row
            for row in comparison.rows
            if row.metric is not None and getattr(row, cost) is not None
        ]
        if len(rows) > 1:
            unit = 100.0 if cost == "macs_fraction" else 1.0
            found.append((title, scatter(comparison.metric or "", title, rows, cost, front, unit)))
    return found


def scatter(
    metric: str, title: str, rows: Sequence[Row], cost: str, front: str, unit: float
) -> Markup:
    """Draw a metric over a cost, a point each run, those that none beats joined.

    Args:
        metric: Name of the metric.
        title: Of the cost.
        rows: Runs that know both.
        cost: Attribute of a row.
        front: Attribute that says whether it is on the front.
        unit: What the cost is multiplied by.
    """
    points = [(getattr(row, cost) * unit, float(row.metric or 0), row) for row in rows]
    x0, x1 = _range([x for x, _, _ in points])
    y0, y1 = _range([y for _, y, _ in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - x0) / (x1 - x0)
        return across, _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (y - y0) / (y1 - y0)

    parts = []
    for tick in ticks(y0, y1, 4):
        _, y = place(x0, tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in ticks(x0, x1, 5):
        x, _ = place(tick, y0)
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:.4g}</text>'
        )
    parts.append(
        f'<text x="{(_WIDTH + _LEFT) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(title)}</text>"
    )
    best = sorted((x, y) for x, y, row in points if getattr(row, front))
    line = "".join(f"{'L' if n else 'M'}{a:.2f} {b:.2f}" for n, (a, b) in
                   enumerate(place(*point) for point in best))  # fmt: skip
    parts.append(f'<path class="front-line" d="{line}"/>')
    # Those on the front last: no other point covers them.
    for x, y, row in sorted(points, key=lambda point: bool(getattr(point[2], front))):
        a, b = place(x, y)
        kind = "point front" if getattr(row, front) else "point"
        said = f"{row.name}: {metric} {metric_text(y)}, {x:.4g}"
        parts.append(
            f'<circle class="{kind}" cx="{a:.2f}" cy="{b:.2f}" r="6">'
            f"<title>{escape(said)}</title></circle>"
        )
    if len(points) <= 12:
        parts.extend(_names([(*place(x, y), row.name) for x, y, row in points]))
    domain = f"{x0:.9g} {x1:.9g} {y0:.9g} {y1:.9g}"
    plane = f"{_LEFT} {_WIDTH - _RIGHT} {_HEIGHT - _BOTTOM} {_TOP}"
    label = f"{metric} over {title}: {len(points)} runs, {len(best)} of them not beaten"
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}" data-domain="{domain}" data-plane="{plane}">'
        f"{''.join(parts)}</svg>"
    )


def _names(points: Sequence[tuple[float, float, str]]) -> Iterator[str]:
    """Yield names beside their points, one text for those that all but coincide."""
    places: list[tuple[float, float, list[str]]] = []
    for a, b, name in points:
        near = (one for one in places if abs(one[0] - a) < 14 and abs(one[1] - b) < 12)
        together = next(near, None)
        if together is None:
            places.append((a, b, [name]))
        else:
            together[2].append(name)
    for a, b, names in places:
        # Behind the middle they end at the point: the right border would cut them off.
        is_left = a < (_LEFT + _WIDTH) / 2
        x, anchor = (a + 8, "start") if is_left else (a - 8, "end")
        said = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield f'<text x="{x:.1f}" y="{b - 7:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    return low - room, high + room
