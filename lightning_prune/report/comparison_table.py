"""Several runs as a table on the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_prune.report.page.comparison import Comparison
from lightning_prune.report.page.numbers import compact, metric_text

MOST_SETTINGS = 4
"""Settings that have a column; a terminal has no room for more."""


def comparison_table(comparison: Comparison) -> Table:
    """Return the table of a comparison; what no run knows gets no column."""
    rows, short = comparison.rows, comparison.short_keys
    columns: list[tuple[str, list[str]]] = [("run", [row.name for row in rows])]
    for key in comparison.keys[:MOST_SETTINGS]:
        columns.append((short[key], [row.settings.get(key) or "-" for row in rows]))
    texts = (
        (comparison.metric or "", [row.metric for row in rows], metric_text),
        ("MACs left", [row.macs_fraction for row in rows], lambda value: f"{value:.1%}"),
        ("parameters", [row.parameters for row in rows], compact),
        ("ms", [row.latency_ms for row in rows], lambda value: f"{value:.3g}"),
    )
    for heading, values, text in texts:
        if any(value is not None for value in values):
            columns.append((heading, ["-" if v is None else text(v) for v in values]))
    if any(row.front for row in rows):
        columns.append(("front", ["*" if row.front else "" for row in rows]))
    if any(row.status != "ok" for row in rows):
        columns.append(("status", [row.status for row in rows]))
    table = Table(title="Runs side by side", title_justify="left", header_style="bold")
    for number, (heading, _) in enumerate(columns):
        table.add_column(Text(heading), justify="right" if number else "left", overflow="fold")
    for cells in zip(*(cells for _, cells in columns), strict=True):
        # What a user typed may look like markup.
        table.add_row(*map(Text, cells))
    return table


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print the table, and what its stars mean."""
    console = console or Console(width=None if Console().is_terminal else 120)
    console.print(comparison_table(comparison))
    if any(row.front for row in comparison.rows):
        better = "lower" if comparison.lower else "higher"
        text = f"*: no other run has a {better} {comparison.metric} at no more MACs"
        console.print(Text(text), style="dim")
    more = len(comparison.keys) - MOST_SETTINGS
    if more > 0:
        console.print(Text(f"{more} more settings differ: the page lists them"), style="dim")
