"""A report in ten lines: what pruning did, which file to deploy, where the rest is."""

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_prune.files.near_path import near_path
from lightning_prune.report.page.numbers import bytes_text, change_text, compact, metric_text
from lightning_prune.report.report_data import CheckpointRow, LayerRow, ReportData, Usage

_PACKAGE = "python -m lightning_prune"
_LONGEST = 36  # characters of a reason: lines fit into 80 columns
_LINES = 10


def summary(content: ReportData, folder: Path | None = None) -> list[str]:
    r"""Return at most ten lines on a run.

    A second metric is shown where there is room; all of them are in the tables.

    Args:
        content: The report.
        folder: Where it was written; None: commands on it are left out.

    >>> from lightning_prune.report.report_data import ModelFacts
    >>> dense, pruned = ModelFacts(macs=80_000_000), ModelFacts(macs=20_000_000)
    >>> print("\n".join(summary(ReportData(dense=dense, pruned=pruned))))
                  dense      pruned     change
    MACs          80 M       20 M       -75.0%
    """
    sizes, facts = list(_sizes(content)), list(_facts(content, folder))
    if len(sizes) + len(facts) > _LINES - 2:  # `report` says where the page is, too
        facts = [fact for fact in facts if fact[0] != "look"]
    rows = [*_metrics(content, 2 if len(sizes) + len(facts) <= _LINES - 3 else 1), *sizes]
    if content.trained == "dense":  # channels were counted and reset, nothing was pruned
        rows = [(label, before) for label, before, *_ in rows if before != "-"]
    elif rows:
        rows = [("", "dense", "pruned", "change"), *rows]
    return list(_aligned([*rows, *facts]))


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
    bytes_ = [side.bytes for side in (dense, pruned) if side.bytes]
    disk = f"; on disk {bytes_text(bytes_[0])} -> {bytes_text(bytes_[1])}" if bytes_[1:] else ""
    sizes = [
        ("MACs", dense.macs, pruned.macs, ""),
        ("parameters", dense.parameters, pruned.parameters, disk),
    ]
    for label, before, after, more in sizes:
        if before is not None and after is not None:
            yield label, compact(before), compact(after), f"{change_text(before, after)}{more}"
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
        # That it is of the cut model goes without saying; 80 columns are soon full.
        why = best.why.removesuffix(" of the cut model")
        epoch = "" if best.epoch is None else f"epoch {best.epoch + 1}, "
        yield "deploy", f"{best.file} ({epoch}{why})"
    if folder is None:
        return
    near = near_path(folder)
    if best is not None and (folder / "config.yaml").is_file():
        yield "export", f"{_PACKAGE} export {shlex.quote(_exported(best, near))}"
    elif best is not None:  # no run of the command line: only its author knows the class
        file = str(Path(near, best.file))
        yield "load", f"lightning_prune.load_pruned({content.module or 'CLASS'}, {file!r})"
    yield "tables", f"{_PACKAGE} report {shlex.quote(near)}"
    if (folder / "report.html").is_file():
        yield "look", f"{Path(near, 'report.html')}"


def _exported(best: CheckpointRow, folder: str) -> str:
    """Return what to export: of the folder of a run it is the best file after the cut."""
    known = best.file.startswith("checkpoints/best_pruned")
    return folder if known else str(Path(folder, best.file))


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
