"""Curves over the epochs of a run, as inline SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lightning_prune.report.page.numbers import metric_text, ticks

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 24
# Epochs up to which every point is marked.
_MARKED = 60


@dataclass(frozen=True)
class Frame:
    """Where a chart's plane is, and what its borders stand for.

    Attributes:
        x0: Value at the left border.
        x1: Value at the right one.
        y0: Value at the lower one.
        y1: Value at the upper one.
    """

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        """Return the place of a value along the width."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        """Return the place of a value along the height."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / (self.y1 - self.y0)

    @property
    def attributes(self) -> str:
        """Return it as attributes of an SVG, for whoever reads numbers back."""
        domain = f"{self.x0:.9g} {self.x1:.9g} {self.y0:.9g} {self.y1:.9g}"
        plane = f"{LEFT} {WIDTH - RIGHT} {HEIGHT - BOTTOM} {TOP}"
        return f'data-domain="{domain}" data-plane="{plane}"'


@dataclass(frozen=True)
class Span:
    """A stage of a run: epochs ``first`` to ``last`` (0-based, both in it), and its colour."""

    name: str
    first: int
    last: int


def line_chart(
    title: str,
    epochs: Sequence[int],
    lines: Mapping[str, Sequence[float | None]],
    spans: Sequence[Span] = (),
    zero: bool = False,
) -> Markup:
    """Draw lines over epochs, which are counted from 1 on the axis.

    Args:
        title: What is drawn, in words.
        epochs: (E,) epochs, 0-based.
        lines: Name -> E values, None where there is none.
        spans: The stages, drawn behind.
        zero: Whether the axis begins at zero.
    """
    values = [value for line in lines.values() for value in line if value is not None]
    frame = _frame(epochs, values, zero)
    parts = [_span(frame, span) for span in spans]
    for tick in ticks(frame.y0, frame.y1, 3):
        place = frame.y(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{place + 3.5:.1f}" text-anchor="end">'
            f"{tick:.4g}</text>"
        )
    for tick in ticks(epochs[0] + 1, epochs[-1] + 1, 5):
        if tick == int(tick):
            parts.append(
                f'<text class="tick" x="{frame.x(tick - 1):.1f}" y="{HEIGHT - 8}" '
                f'text-anchor="middle">{tick:.0f}</text>'
            )
    for number, (name, line) in enumerate(lines.items()):
        parts.append(_line(frame, epochs, name, line, number))
    said = "; ".join(_said(name, line) for name, line in lines.items())
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title} over the epochs. {said}")}" {frame.attributes}>'
        f"{''.join(parts)}</svg>"
    )


def _frame(epochs: Sequence[int], values: Sequence[float], zero: bool) -> Frame:
    low, high = min(values), max(values)
    low = min(low, 0.0) if zero else low
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    first, last = epochs[0] - 0.5, epochs[-1] + 0.5
    return Frame(first, last, low if zero and low == 0 else low - room, high + room)


def _span(frame: Frame, span: Span) -> str:
    left, right = frame.x(span.first - 0.5), frame.x(span.last + 0.5)
    left, right = max(left, LEFT), min(right, WIDTH - RIGHT)
    return (
        f'<rect class="span {escape(span.name)}" x="{left:.1f}" y="{TOP}" '
        f'width="{max(right - left, 0):.1f}" height="{HEIGHT - TOP - BOTTOM}" '
        f'data-first="{span.first}" data-last="{span.last}"/>'
    )


def _line(
    frame: Frame, epochs: Sequence[int], name: str, line: Sequence[float | None], number: int
) -> str:
    path, pen = [], "M"
    marks = []
    for epoch, value in zip(epochs, line, strict=True):
        if value is None:
            continue
        x, y = frame.x(epoch), frame.y(value)
        path.append(f"{pen}{x:.2f} {y:.2f}")
        pen = "L"
        if len(epochs) <= _MARKED:
            title = f"epoch {epoch + 1}: {name} {metric_text(value)}"
            marks.append(
                f'<circle cx="{x:.2f}" cy="{y:.2f}" r="2.4"><title>{escape(title)}</title></circle>'
            )
    drawn = f'<path d="{"".join(path)}"/>'
    return (
        f'<g class="line line{number % 4}" data-name="{escape(name)}">{drawn}{"".join(marks)}</g>'
    )


def _said(name: str, line: Sequence[float | None]) -> str:
    known = [value for value in line if value is not None]
    if not known:
        return f"{name}: none"
    return f"{name} begins at {metric_text(known[0])} and ends at {metric_text(known[-1])}"
