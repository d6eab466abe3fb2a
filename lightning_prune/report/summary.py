"""A report in ten lines: what pruning did, which file to deploy, where the rest is."""

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_prune.report.page.numbers import bytes_text, change_text, compact, metric_text
from lightning_prune.report.report_data import CheckpointRow, LayerRow, ReportData, Usage

_PACKAGE = "python -m lightning_prune"
_LONGEST = 60  # characters of a reason; terminals of 80 columns are common


def summary(content: ReportData, folder: Path | None = None, most_metrics: int = 2) -> list[str]:
    r"""Return at most ten lines on a run.

    Args:
        content: The report.
        folder: Where it was written; None: commands on it are left out.
        most_metrics: Metrics that are shown; the others are in the tables.

    >>> from lightning_prune.report.report_data import ModelFacts
    >>> dense, pruned = ModelFacts(macs=80_000_000), ModelFacts(macs=20_000_000)
    >>> print("\n".join(summary(ReportData(dense=dense, pruned=pruned))))
                  dense      pruned     change
    MACs          80 M       20 M       -75.0%
    """
    rows = [*_metrics(content, most_metrics), *_sizes(content)]
    if content.trained == "dense":  # channels were counted and reset, nothing was pruned
        rows = [(label, before) for label, before, *_ in rows if before != "-"]
    elif rows:
        rows = [("", "dense", "pruned", "change"), *rows]
    return list(_aligned([*rows, *_facts(content, folder)]))


def _metrics(content: ReportData, most: int) -> Iterator[tuple[str, ...]]:
    dense, pruned = content.dense.metrics, content.pruned.metrics
    monitored = next((row.monitored for row in content.checkpoints if row.monitored), "")
    # A test says more than the validation that chose the checkpoint; losses say least.
    names = sorted(
        {*dense, *pruned},
        key=lambda name: (
            not name.startswith("test/"),
            name.partition("/")[2] != (monitored or "").partition("/")[2],
            name not in dense or name not in pruned,
            "loss" in name,
            name,
        ),
    )
    tested = [name for name in names if name.startswith("test/")]
    for name in (tested or names)[:most]:
        pair = dense.get(name), pruned.get(name)
        known = [value for value in pair if value is not None]
        change = f"{known[1] - known[0]:+.4f}" if known[1:] else "-"
        yield name, *("-" if value is None else metric_text(value) for value in pair), change


def _sizes(content: ReportData) -> Iterator[tuple[str, ...]]:
    dense, pruned = content.dense, content.pruned
    sizes = [("MACs", dense.macs, pruned.macs), ("parameters", dense.parameters, pruned.parameters)]
    for label, before, after in sizes:
        if before is not None and after is not None:
            yield label, compact(before), compact(after), change_text(before, after)
    fast, faster = dense.latency_ms, pruned.latency_ms
    if fast is not None and faster is not None:
        where = f" in {content.latency_runtime}" if content.latency_runtime else ""
        change = f"{change_text(fast, faster)}{where}"
        yield "latency", f"{fast:.3g} ms", f"{faster:.3g} ms", change


def _facts(content: ReportData, folder: Path | None) -> Iterator[tuple[str, str]]:
    if content.layers or content.refused:
        yield "channels", channels_in_words(content.layers, content.refused)
    if content.slices and not content.layers:
        yield "slices", f"of {len(content.slices)} layers are zero; size and MACs stay"
    if content.usage is not None:
        yield "usage", usage_in_words(content.usage)
    best = deployed(content.checkpoints)
    if best is not None:
        size = "" if best.bytes is None else f", {bytes_text(best.bytes)}"
        yield "deploy", f"{best.file} (epoch {(best.epoch or 0) + 1}, {best.why}{size})"
    if folder is not None:
        yield "look", str(folder / "report.html")
        yield "next", f"{_PACKAGE} report {shlex.quote(str(folder))} (or export, predict, why)"


def channels_in_words(rows: list[LayerRow], refused: Mapping[str, str]) -> str:
    """Return how many groups became narrower, and what kept the others from it.

    >>> channels_in_words([], {"head": "output of the network", "x": "output of the network"})
    '0 of 0 groups narrower; 2 layers refused (output of the network)'
    """
    groups = {row.group for row in rows}
    narrower = {row.group for row in rows if row.channels_after < row.channels_before}
    text = f"{len(narrower)} of {len(groups)} groups narrower"
    fallback = {row.group for row in rows if row.status == "fallback"}
    if fallback:
        text += f", {len(fallback)} by fallback"
    if refused:
        reason, _ = Counter(refused.values()).most_common(1)[0]
        short = textwrap.shorten(reason, _LONGEST, placeholder=" ...")
        layers = f"{len(refused)} layer{'s' * (len(refused) > 1)}"
        text += f"; {layers} refused ({short})"
    return text


def usage_in_words(usage: Usage) -> str:
    """Return how many channels were used in the last epoch, and how many were reset in all.

    >>> from lightning_prune.report.report_data import LayerUsage
    >>> usage_in_words(Usage(0.0, [0, 1], {"a": LayerUsage([4, 4], [3, 4], [0, 1])}))
    '4 of 4 channels used in the last epoch; 1 reset in all'
    """
    layers = usage.layers.values()
    used, channels = (
        sum(row[-1] for row in rows if row)
        for rows in ([layer.used for layer in layers], [layer.channels for layer in layers])
    )
    reset = sum(sum(layer.reset) for layer in layers)
    return f"{used} of {channels} channels used in the last epoch; {reset} reset in all"


def deployed(rows: list[CheckpointRow]) -> CheckpointRow | None:
    """Return the file to deploy: of the cut model the best by a metric, else the latest."""
    cut = [row for row in rows if row.holds == "cut"]
    return next((row for row in cut if row.metric is not None), cut[-1] if cut else None)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    first = max(13, *(len(label) for label, *_ in rows))
    for label, *cells in rows:
        texts = [f"{label:<{first}}", *(f"{cell:<10}" for cell in cells)]
        yield " ".join(texts).rstrip()
