"""Dense and pruned side by side, and what the page says of each layer."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.report.page.numbers import bytes_text, change_text, compact, metric_text
from lightning_prune.report.page.stored_run import StoredRun
from lightning_prune.report.page.verdict import is_lower_better
from lightning_prune.report.report_data import LayerRow, ReportData

BOUNDS = {
    "knee": "knee of the silhouette curve",
    "count": "number of different profiles",
    "lower": "lower bound of keep_range",
    "upper": "upper bound of keep_range",
    "rounding": "rounding to a multiple",
    "fallback": "no knee: upper bound",
    "mac_target": "MAC target",
    "ratio": "pruning ratio",
    "keep_range": "keep_range",
    "plan": "plan of another masker",
    "none": "left as it was",
}


@dataclass(frozen=True)
class Pair:
    """One quantity of both models.

    Attributes:
        name: What it is.
        dense: Of the dense model, as a text.
        pruned: Of the pruned one.
        change: What changed.
        better: Whether that is better; None: neither, or not known.
        fraction: Pruned as a fraction of dense, for a bar; None: no bar.
    """

    name: str
    dense: str
    pruned: str
    change: str
    better: bool | None
    fraction: float | None = None


def pairs(run: StoredRun) -> list[Pair]:
    """Return what was measured of at least one of the two models."""
    report = run.report
    if report is None or report.trained == "dense":
        return []
    dense, pruned = report.dense, report.pruned
    sizes = (
        ("MACs", dense.macs, pruned.macs, compact),
        ("Parameters", dense.parameters, pruned.parameters, compact),
        ("Weights on disk", dense.bytes, pruned.bytes, bytes_text),
        ("Time of a forward pass", dense.latency_ms, pruned.latency_ms, _milliseconds),
    )
    found = []
    for name, before, after, text in sizes:
        if before is None and after is None:
            continue
        both = [("-" if value is None else text(value)) for value in (before, after)]
        if before and after is not None:
            better = None if after == before else after < before
            found.append(
                Pair(name, both[0], both[1], change_text(before, after), better, after / before)
            )
        else:
            found.append(Pair(name, both[0], both[1], "-", None))
    return [*found, *_metrics(report)]


def _metrics(report: ReportData) -> list[Pair]:
    found = []
    dense, pruned = report.dense.metrics, report.pruned.metrics
    names = {**dense, **pruned}
    for name in sorted(names, key=lambda name: (not name.startswith("test/"), name)):
        before, after = dense.get(name), pruned.get(name)
        both = [("-" if value is None else metric_text(value)) for value in (before, after)]
        if before is None or after is None:
            found.append(Pair(name, both[0], both[1], "-", None))
            continue
        gain = before - after if is_lower_better(name, report) else after - before
        better = None if gain == 0 else gain > 0
        found.append(Pair(name, both[0], both[1], f"{after - before:+.4f}", better))
    return found


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms"


def set_by(row: LayerRow) -> str:
    """Return what set the width of a layer, in words."""
    return BOUNDS.get(row.bound, row.bound)


def status_class(row: LayerRow) -> str:
    """Return by which colour a layer is shown: pruned, fallback or refused."""
    return {"pruned": "pruned", "fallback": "fallback"}.get(row.status, "refused")


def common_prefix(names: Sequence[str]) -> str:
    """Return the dotted beginning that all names have, which a page need not repeat.

    >>> common_prefix(["network.a.conv", "network.b.conv"]), common_prefix(["a.conv"])
    ('network.', '')
    """
    if len(names) < 2:
        return ""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}." for part in shared)


def refusals(report: ReportData) -> dict[str, list[str]]:
    """Return why layers were not pruned, or not for a good reason: reason -> their names."""
    found: dict[str, list[str]] = {}
    for row in sorted(report.layers, key=lambda row: row.status):
        if row.reason:
            words = {"left": "left as it was", "fallback": "fell back"}
            word = words.get(row.status, "pruned all the same")
            found.setdefault(f"{word}: {row.reason}", []).append(row.label)
    for name, reason in report.refused.items():
        found.setdefault(f"cannot be pruned: {reason}", []).append(name)
    return found
