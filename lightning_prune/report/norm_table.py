"""What became of the norms, as tables on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def norms_table(content: Mapping[str, Any]) -> Table:
    """Return the table of epochs: low channels, mean norm, MACs without the low ones, metric.

    It counts epochs from 1, as all that people read; names of files count from 0.
    """
    rows, metric = content["epochs"], content["metric"]
    table = Table(header_style="bold")
    for heading in ("epoch", "low", "mean norm", "MACs left", *([metric] if metric else [])):
        table.add_column(heading, justify="right")
    table.add_column("file", overflow="fold")
    for row in rows:
        cells = [
            str(row["epoch"] + 1),
            f"{row['low_channels']:.1%}",
            f"{row['mean_norm']:.4g}",
            "-" if row["macs"] is None else f"{row['macs']:.1%}",
        ]
        if metric:
            cells.append("-" if row["metric"] is None else f"{row['metric']:.4f}")
        name = row["file"].replace("\\", "/").rpartition("/")[2]
        style = "bold" if row["epoch"] == content["start"] else None
        table.add_row(*cells, name, style=style)
    return table


def verdict(content: Mapping[str, Any]) -> str:
    """Return from which epoch pruning can start, and how; or that it is too early.

    >>> row = {"epoch": 3, "low_channels": 0.125, "file": "a.ckpt"}
    >>> print(verdict({"start": None, "wanted": 0.3, "epochs": [row], "command": None}))
    No epoch has 30% of the channels low: at most 12.5%, in epoch 4. Regularize longer or more
    strongly (pruning.regularizer.reg), or ask for less (--wanted 0.12).
    """
    rows, wanted = content["epochs"], content["wanted"]
    if content["start"] is None:
        best = max(rows, key=lambda row: row["low_channels"])
        less = int(100 * best["low_channels"]) / 100
        ask = f", or ask for less (--wanted {less:g})" if less >= 0.05 else ""
        return (
            f"No epoch has {wanted:.0%} of the channels low: at most {best['low_channels']:.1%}, "
            f"in epoch {best['epoch'] + 1}. Regularize longer or more strongly "
            f"(pruning.regularizer.reg){ask}."
        )
    row = next(row for row in rows if row["epoch"] == content["start"])
    return (
        f"Pruning can start from epoch {row['epoch'] + 1}, the first with at least {wanted:.0%} of "
        f"the channels low ({row['low_channels']:.1%}):\n{row['file']}\n{content['command']}"
    )


def print_norms(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table of epochs and the verdict."""
    console = _console(console)
    console.print(
        f"{content['channels']} channels in {len(content['groups'])} groups; low: a norm under "
        f"{content['threshold']:g} of the largest in the group",
        highlight=False,
    )
    console.print(norms_table(content))
    # A command must stay one line, to be copied.
    console.print(verdict(content), soft_wrap=True, highlight=False, markup=False)


def print_comparison(
    labels: Sequence[str], contents: Sequence[Mapping[str, Any]], console: Console | None = None
) -> None:
    """Print one row per run: its last epoch, and the first from which pruning can start."""
    table = Table(title="Runs, at their last epoch", title_justify="left", header_style="bold")
    table.add_column("run", overflow="fold")
    for heading in ("low", "mean norm", "norm drop", "MACs left", "metric", "from epoch"):
        table.add_column(heading, justify="right")
    for label, content in zip(labels, contents, strict=True):
        first, last = content["epochs"][0], content["epochs"][-1]
        drop = 1 - last["mean_norm"] / first["mean_norm"] if first["mean_norm"] else 0.0
        table.add_row(
            label,
            f"{last['low_channels']:.1%}",
            f"{last['mean_norm']:.4g}",
            f"{drop:.1%}",
            "-" if last["macs"] is None else f"{last['macs']:.1%}",
            "-" if last["metric"] is None else f"{last['metric']:.4f}",
            "-" if content["start"] is None else str(content["start"] + 1),
        )
    console = _console(console)
    console.print(table)
    for label, content in zip(labels, contents, strict=True):
        console.print(f"{label}: {verdict(content)}", soft_wrap=True, highlight=False, markup=False)


def _console(console: Console | None) -> Console:
    # Outside a terminal rich assumes 80 columns, in which names would be folded.
    return console or Console(width=None if Console().is_terminal else 120)
