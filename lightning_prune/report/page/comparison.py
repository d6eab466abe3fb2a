"""Several runs side by side: a row each, what differs, and which of them nothing beats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_prune.errors import ConfigError
from lightning_prune.report.page.run_page import PAGE
from lightning_prune.report.page.stored_run import StoredRun, is_run, read_run
from lightning_prune.report.page.verdict import is_lower_better

VERSION = 1


@dataclass
class Row:
    """One run.

    Attributes:
        name: Its name, the shortest that is its own.
        page: Its page, relative to the comparison; None: there is none.
        settings: Key -> value of the settings in which the runs differ; "": not given.
        metric: Value of the common metric; None: not known.
        dense: That of its dense model.
        macs_fraction: Fraction of the dense model's MACs that remains.
        macs: MACs that remain.
        parameters: Parameters that remain.
        latency_ms: Time of a forward pass, in milliseconds.
        status: ``ok``, or of a job of a sweep ``failed`` or ``unfinished``.
        reason: Why it is not ok.
        front: Whether no other run is at least as good in metric and MACs and better in one.
        fast_front: The same of metric and time.
    """

    name: str
    page: str | None
    settings: dict[str, str] = field(default_factory=dict)
    metric: float | None = None
    dense: float | None = None
    macs_fraction: float | None = None
    macs: int | None = None
    parameters: int | None = None
    latency_ms: float | None = None
    status: str = "ok"
    reason: str | None = None
    front: bool = False
    fast_front: bool = False


@dataclass
class Comparison:
    """Runs side by side.

    Attributes:
        metric: Name of the metric that they have in common; None: none.
        lower: Whether less of it is better.
        rows: The runs.
    """

    metric: str | None
    lower: bool
    rows: list[Row]

    @property
    def keys(self) -> list[str]:
        """Return the settings in which the runs differ."""
        return list(dict.fromkeys(key for row in self.rows for key in row.settings))

    @property
    def short_keys(self) -> dict[str, str]:
        """Return of each of them the shortest end that still distinguishes it."""
        short = {}
        for key in self.keys:
            ends = [".".join(key.split(".")[-n:]) for n in range(1, key.count(".") + 2)]
            alone = (e for e in ends if sum(k == e or k.endswith(f".{e}") for k in self.keys) == 1)
            short[key] = next(alone, key)
        return short

    def to_plain(self) -> dict[str, Any]:
        """Return what the page holds as JSON."""
        rows = [vars(row) for row in self.rows]
        return {"version": VERSION, "metric": self.metric, "lower": self.lower, "runs": rows}


def run_folders(given: Sequence[Path]) -> list[Path]:
    """Return the runs among what was given: folders of runs, and folders that hold such.

    Raises:
        ConfigError: a folder is not there or holds no run, or there are fewer than two runs.
    """
    found: list[Path] = []
    for folder in given:
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} is no folder: give folders of runs, or one that holds runs"
            )
        inside = [folder] if is_run(folder) else _inside(folder)
        if not inside:
            raise ConfigError(f"{folder} holds no run: give the folder of a run or of a sweep")
        found += inside
    runs = list(dict.fromkeys(path.resolve() for path in found))
    if len(runs) < 2:
        raise ConfigError(
            f"{runs[0]} is one run, and a comparison needs two: give more folders, or draw this "
            "one with `python -m lightning_prune report`"
        )
    return runs


def _inside(folder: Path) -> list[Path]:
    """Return the runs in a folder and in its subfolders, numbers in their order."""
    below = [path for path in folder.rglob("*") if path.is_dir() and is_run(path)]
    runs = [p for p in below if not any(other != p and p.is_relative_to(other) for other in below)]
    return sorted(runs, key=lambda path: [(len(part), part) for part in path.parts])


def compare(folders: Sequence[Path], beside: Path) -> Comparison:
    """Compare runs.

    Args:
        folders: Their folders.
        beside: Folder of the page, from which pages of runs are linked.
    """
    runs = [read_run(folder, decisions=False) for folder in folders]
    names = _names([run.folder for run in runs])
    values = [_metrics(run) for run in runs]
    metric = _common(runs, values)
    settings = _settings(runs)
    rows = [_row(*each, metric, beside) for each in zip(runs, names, settings, values, strict=True)]
    lower = metric is not None and any(is_lower_better(metric, run.report) for run in runs)
    result = Comparison(metric, lower, rows)
    mark_front(rows, lower)
    return result


def mark_front(rows: Sequence[Row], lower: bool) -> None:
    """Mark the runs that no other one beats: more of the metric at no more cost, or the reverse."""
    for cost, mark in (("macs_fraction", "front"), ("latency_ms", "fast_front")):
        points: list[tuple[Row, float, float]] = []
        for row in rows:
            price = getattr(row, cost)
            if row.metric is not None and price is not None:
                points.append((row, float(price), row.metric if lower else -row.metric))
        for row, price, loss in points:
            beaten = any(p <= price and q <= loss and (p < price or q < loss) for _, p, q in points)
            setattr(row, mark, not beaten)


def _row(
    run: StoredRun,
    name: str,
    settings: dict[str, str],
    values: tuple[Mapping[str, float], Mapping[str, float]],
    metric: str | None,
    beside: Path,
) -> Row:
    row = Row(name, _page(run.folder, beside), settings)
    if metric is not None:
        row.metric, row.dense = values[0].get(metric), values[1].get(metric)
    report, job = run.report, run.job or {}
    row.status = "ok" if job.get("status") is None else str(job["status"])
    row.reason = job.get("reason")
    if report is None:
        known = run.result.get("macs")
        row.macs_fraction = float(known) if known is not None else None
        return row
    pruned = report.pruned
    row.macs_fraction, row.macs = report.macs_fraction, pruned.macs
    row.parameters, row.latency_ms = pruned.parameters, pruned.latency_ms
    return row


def _page(folder: Path, beside: Path) -> str | None:
    if not (folder / PAGE).is_file() or not folder.is_relative_to(beside.resolve()):
        return None
    return (folder.relative_to(beside.resolve()) / PAGE).as_posix()


def _metrics(run: StoredRun) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics of the trained and of the dense model."""
    result = run.result.get("metrics", {})
    known = {name: float(value) for name, value in result.items() if not isinstance(value, str)}
    monitor, value = run.result.get("monitor"), run.result.get("value")
    if monitor is not None and isinstance(value, float | int):
        known[monitor] = float(value)
    if run.report is None:
        return known, {}
    return known | run.report.of(run.report.trained).metrics, run.report.dense.metrics


def _common(
    runs: Sequence[StoredRun], values: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
) -> str | None:
    """Return the metric that most runs have; among those the tested one of what they monitor."""
    counts = Counter(name for known, _ in values for name in known)
    monitor = next((run.monitor for run in runs if run.monitor), None)
    wanted = [f"test/{monitor.partition('/')[2]}", monitor] if monitor else []

    def rank(name: str) -> tuple[int, int, bool, str]:
        place = wanted.index(name) if name in wanted else len(wanted)
        return -counts[name], place, not name.startswith("test/"), name

    return min(counts, key=rank, default=None)


def _settings(runs: Sequence[StoredRun]) -> list[dict[str, str]]:
    """Return of each run the settings of its command in which the runs differ."""
    given = [dict(_split(word) for word in run.command) for run in runs]
    for run, words in zip(runs, given, strict=True):
        if run.report is not None and run.report.seed is not None:
            words.setdefault("seed", str(run.report.seed))
    keys = dict.fromkeys(key for words in given for key in words)
    differ = [key for key in keys if len({words.get(key) for words in given}) > 1]
    return [{key: words.get(key, "") for key in differ} for words in given]


def _split(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+~"), value


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that distinguish them."""
    parts = [folder.resolve().parts for folder in folders]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
