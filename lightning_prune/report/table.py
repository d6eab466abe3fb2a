"""The report as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from lightning_prune.report.report_data import (
    CheckpointRow,
    LayerRow,
    ModelFacts,
    ReportData,
    Usage,
)
from lightning_prune.report.sentences import (
    distilled,
    how_to_load,
    imitated,
    reasons,
    what_separability_decided,
)

_MILLIONS = 1e6


def layer_table(rows: Sequence[LayerRow]) -> Table:
    """Return the table of layers: channels before and after, what set the width, and why.

    Where separability was measured, with the number of different profiles, and separability
    beside that of labels dealt out at random.
    """
    measured = any(row.separability is not None for row in rows)
    table = Table(title="Layers, front to back", title_justify="left", header_style="bold")
    table.add_column("layer", no_wrap=True)
    for heading in ("before", "after", "removed", "knee"):
        table.add_column(heading, justify="right")
    if measured:
        table.add_column("profiles", justify="right")
        table.add_column("separability (random)", justify="right")
    table.add_column("set by")
    table.add_column("status")
    for row in rows:
        separability = ("-" if row.count is None else str(row.count), _beside_random(row))
        table.add_row(
            row.label,
            str(row.channels_before),
            str(row.channels_after),
            f"{row.pruning_ratio:.0%}",
            "-" if row.knee is None else str(row.knee),
            *(separability if measured else ()),
            row.bound,
            row.status,
        )
    return table


def _beside_random(row: LayerRow) -> str:
    if row.separability is None or row.separability_at_random is None:
        return "-"
    return f"{row.separability:.3f} ({row.separability_at_random:.3f})"


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before else "-"


def summary_table(dense: ModelFacts, pruned: ModelFacts, runtime: str | None = None) -> Table:
    """Return the table of the dense model beside the pruned one; `runtime` ran both."""
    table = Table(title="Dense and pruned", title_justify="left", header_style="bold")
    table.add_column("")
    for heading in ("dense", "pruned", "change"):
        table.add_column(heading, justify="right")
    sizes = (
        ("parameters (million)", dense.parameters, pruned.parameters, _MILLIONS, ".3f"),
        ("MACs (million)", dense.macs, pruned.macs, _MILLIONS, ".1f"),
        (
            f"latency (ms, batch of the example{', ' + runtime if runtime else ''})",
            dense.latency_ms,
            pruned.latency_ms,
            1,
            ".2f",
        ),
    )
    for label, before, after, unit, form in sizes:
        if before is not None and after is not None:
            table.add_row(
                label, f"{before / unit:{form}}", f"{after / unit:{form}}", _change(before, after)
            )
    for name in sorted({*dense.metrics, *pruned.metrics}):
        pair = dense.metrics.get(name), pruned.metrics.get(name)
        cells = ["-" if value is None else f"{value:.4f}" for value in pair]
        known = [value for value in pair if value is not None]
        table.add_row(name, *cells, f"{known[1] - known[0]:+.4f}" if known[1:] else "-")
    return table


def slice_table(fractions: Mapping[str, float]) -> Table:
    """Return the table of the layers in which slices are held at zero."""
    table = Table(title="Slices held at zero", title_justify="left", header_style="bold")
    table.add_column("layer", no_wrap=True)
    table.add_column("zero weights", justify="right")
    for name, fraction in fractions.items():
        table.add_row(name, f"{fraction:.1%}")
    return table


def usage_table(usage: Usage) -> Table:
    """Return the table of layers with channels that were reset, or unused in the last epoch."""
    table = Table(title="Channel usage", title_justify="left", header_style="bold")
    table.add_column("layer", no_wrap=True)
    for heading in ("channels", "unused at the end", "reset in all"):
        table.add_column(heading, justify="right")
    quiet = 0
    for name, row in usage.layers.items():
        unused, reset = row.channels[-1] - row.used[-1], sum(row.reset)
        if unused or reset:
            table.add_row(name, str(row.channels[-1]), str(unused), str(reset))
        quiet += not (unused or reset)
    if quiet:
        which = "other" if table.row_count else "tracked"
        table.add_row(f"{quiet} {which} layer{'s' if quiet > 1 else ''}", "", "0", "0")
    return table


def checkpoint_table(rows: Sequence[CheckpointRow]) -> Table:
    """Return the table of checkpoints: which model each of them holds, and why it was written."""
    table = Table(title="Checkpoints", title_justify="left", header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("holds")
    table.add_column("epoch", justify="right")
    table.add_column("metric", justify="right")
    table.add_column("why")
    for row in rows:
        table.add_row(
            row.file,
            row.holds or "-",
            "-" if row.epoch is None else str(row.epoch + 1),
            "-" if row.metric is None else f"{row.metric:.4f}",
            row.why,
        )
    return table


def print_report(content: ReportData, console: Console | None = None) -> None:
    """Print the tables; on a terminal with colour, elsewhere as plain text."""
    # Outside a terminal rich assumes 80 columns, in which layer names would be folded.
    console = console or Console(width=None if Console().is_terminal else 120)
    usage = content.usage
    if content.layers or not (content.slices or usage):
        console.print(layer_table(content.layers))
    for reason, names in reasons(content.layers).items():
        console.print(f"{reason}: {', '.join(names)}", style="yellow")
    if content.separability is not None:
        console.print(what_separability_decided(content.separability))
    if content.slices:
        console.print(slice_table(content.slices))
        console.print("Slices bring no speed on general hardware: size and MACs stay.")
    if usage:
        console.print(usage_table(usage))
    if content.label_free is not None:
        console.print(imitated(content.label_free), soft_wrap=True)
    if content.distillation is not None:
        console.print(distilled(content.distillation), soft_wrap=True)
    if content.layers or content.slices or not usage:
        console.print(summary_table(content.dense, content.pruned, content.latency_runtime))
    if content.checkpoints:
        console.print(checkpoint_table(content.checkpoints))
    if content.cut is not None:
        console.print(how_to_load(content.checkpoints, content.module), soft_wrap=True)
