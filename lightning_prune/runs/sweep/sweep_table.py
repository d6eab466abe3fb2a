"""The runs of a sweep side by side: one row a job, in a table, as JSON and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_prune.files import write_bytes
from lightning_prune.files.write_json import write_json

# Columns behind the metrics: key of a job's result, heading of the table.
_FRACTIONS = {
    "norm_drop": "norm drop",
    "low_channels": "low channels",
    "macs": "MACs left",
}


def sweep_rows(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per job, in the order of their numbers.

    Args:
        jobs: What each job left behind: ``job`` (its number), ``overrides`` ("key=value" each),
            ``status`` (ok, failed or unfinished), ``reason`` (text or None), and ``result``
            (``monitor``, ``value``, ``metrics``, ``norm_drop``, ``low_channels``, ``macs``), None
            where there is none.

    Returns:
        Rows with ``job``, ``overrides`` (only those in which the jobs differ, key -> text),
        ``metrics`` (the monitored one first), the three fractions or None, ``status``, ``reason``.

    Example:
        >>> jobs = [
        ...     {"job": n, "overrides": ["seed=1", f"lr={n}"], "status": "ok", "reason": None,
        ...      "result": {"monitor": "val/map", "value": n / 4, "metrics": {}}}
        ...     for n in (1, 0)
        ... ]
        >>> [(row["overrides"], row["metrics"]) for row in sweep_rows(jobs)]
        [({'lr': '0'}, {'val/map': 0.0}), ({'lr': '1'}, {'val/map': 0.25})]
    """
    jobs = sorted(jobs, key=lambda job: job["job"])
    given = [dict(_split(word) for word in job["overrides"]) for job in jobs]
    keys = dict.fromkeys(key for words in given for key in words)
    differ = [key for key in keys if len({words.get(key) for words in given}) > 1]
    rows = []
    for job, words in zip(jobs, given, strict=True):
        result = job["result"] or {}
        monitored = {result["monitor"]: result["value"]} if result.get("value") is not None else {}
        rows.append(
            {
                "job": job["job"],
                "overrides": {key: words.get(key) for key in differ},
                "metrics": monitored | dict(result.get("metrics", {})),
                **{key: result.get(key) for key in _FRACTIONS},
                "status": job["status"],
                "reason": job["reason"],
            }
        )
    return rows


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of a sweep; what no job has gets no column."""
    table = Table(title="The runs of this sweep", title_justify="left", header_style="bold")
    table.add_column("job", justify="right")
    overrides, metrics = _names(rows, "overrides"), _names(rows, "metrics")
    fractions = [key for key in _FRACTIONS if any(row[key] is not None for row in rows)]
    for heading in [*_shortened(overrides), *metrics, *(_FRACTIONS[key] for key in fractions)]:
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("status")
    for row in rows:
        cells = [row["overrides"].get(key) or "-" for key in overrides]
        cells += [_cell(row["metrics"].get(name), ".4f") for name in metrics]
        cells += [_cell(row[key], ".1%") for key in fractions]
        table.add_row(str(row["job"]), *cells, row["status"])
    return table


def print_sweep(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print the table, what its fractions count, and why jobs are without a result."""
    console = console or Console(width=None if Console().is_terminal else 120)
    console.print(sweep_table(rows))
    if any(row["norm_drop"] is not None for row in rows):
        console.print(
            "norm drop: by how much the mean group norm fell before the first mask; low channels: "
            "fraction of channels under the regularizer's threshold then",
            style="dim",
        )
    for row in rows:
        if row["status"] != "ok":
            # Reasons quote what a user typed: brackets in them are no markup.
            text = f"job {row['job']} {row['status']}: {row['reason']}"
            console.print(text, style="yellow", markup=False, highlight=False)


def write_sweep(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``sweep.json`` and ``sweep.csv``, each whole or not at all."""
    write_json(folder / "sweep.json", {"jobs": list(rows)})
    overrides, metrics = _names(rows, "overrides"), _names(rows, "metrics")
    columns = ["job", *overrides, *metrics, *_FRACTIONS, "status", "reason"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        flat = {**row["overrides"], **row["metrics"], **row}
        writer.writerow(["" if flat.get(key) is None else flat[key] for key in columns])
    write_bytes(folder / "sweep.csv", text.getvalue().encode())


def _split(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+~"), value


def _names(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row[key]))


def _shortened(keys: Sequence[str]) -> list[str]:
    """Return the shortest ends of dotted keys that still distinguish them."""

    def end(key: str, length: int) -> str:
        return ".".join(key.split(".")[-length:])

    found = []
    for key in keys:
        lengths = range(1, key.count(".") + 2)
        alone = (n for n in lengths if sum(end(k, n) == end(key, n) for k in keys) == 1)
        found.append(end(key, next(alone, len(lengths))))
    return found


def _cell(value: Any, form: str) -> str:
    # NaN and infinite values come as text: JSON does not know them.
    return "-" if value is None else format(float(value), form)
