"""The run as curves: loss, metric, MACs and learning rate over its epochs, stages marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lightning_prune.report.history import History
from lightning_prune.report.page.line_chart import Span, line_chart
from lightning_prune.report.page.stored_run import StoredRun
from lightning_prune.report.report_data import ReportData

_MOST_LINES = 4


@dataclass(frozen=True)
class Panel:
    """One chart and what it is called.

    Attributes:
        title: Its title.
        lines: Names of its lines, in the order of their colours.
        svg: The chart.
    """

    title: str
    lines: list[str]
    svg: Markup


def spans_of(report: ReportData | None, history: History) -> list[Span]:
    """Return the stages of a run: dense, masked, cut."""
    if report is None or not history.epochs:
        return []
    first, last = history.epochs[0], history.epochs[-1]
    cut = last + 1 if report.cut is None else report.cut.epoch
    masked = cut if report.first_mask_epoch is None else min(report.first_mask_epoch, cut)
    parts = (("dense", first, masked - 1), ("masked", masked, cut - 1), ("cut", cut, last))
    return [Span(*part) for part in parts if part[2] >= part[1]]


def panels(run: StoredRun) -> list[Panel]:
    """Return the charts of what was recorded; none where nothing was."""
    history = run.history
    if history is None:
        return []
    spans = spans_of(run.report, history)
    known = {
        name: line for name, line in history.metrics.items() if any(v is not None for v in line)
    }
    losses = _losses(known)
    metrics = _metrics(known, run.monitor)
    found = [
        _panel("Loss", losses, history, spans),
        _panel("Metric", metrics, history, spans),
        _panel("MACs left, as a fraction", {"MACs": history.macs_fraction}, history,
               spans, zero=True),
        _panel("Learning rate", {"learning rate": history.learning_rate}, history, spans,
               zero=True),
    ]  # fmt: skip
    return [panel for panel in found if panel is not None]


def _losses(known: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Return the losses of training and validation; parts of them where there is no whole one."""
    whole = {name: line for name, line in known.items() if name in ("train/loss", "val/loss")}
    parts = {name: line for name, line in known.items() if "loss" in name}
    return whole or dict(list(parts.items())[:_MOST_LINES])


def _metrics(
    known: dict[str, list[float | None]], monitor: str | None
) -> dict[str, list[float | None]]:
    """Return the monitored metric and those of the validation beside it, none of them a loss."""
    names = [name for name in known if name.startswith("val/") and "loss" not in name]
    chosen = [monitor] if monitor in known else []
    names = [*chosen, *(name for name in names if name not in chosen)]
    return {str(name): known[str(name)] for name in names[:_MOST_LINES]}


def _panel(
    title: str,
    lines: dict[str, list[float | None]],
    history: History,
    spans: Sequence[Span],
    zero: bool = False,
) -> Panel | None:
    lines = {name: line for name, line in lines.items() if any(v is not None for v in line)}
    if not lines:
        return None
    return Panel(title, list(lines), line_chart(title, history.epochs, lines, spans, zero))
