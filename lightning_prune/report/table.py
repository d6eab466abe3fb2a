"""The report as tables on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from lightning_prune.report.report_data import (
    CheckpointRow,
    DistillationFacts,
    LabelFreeFacts,
    LayerRow,
    ModelFacts,
    ReportData,
    SeparabilityFacts,
    Usage,
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


def what_separability_decided(facts: SeparabilityFacts) -> str:
    """Return the sentence that says how many groups separability has decided.

    >>> what_separability_decided(SeparabilityFacts(groups=59, decided=47, noise=12, fraction=0.8))
    'Separability decided 47 of 59 pruned groups (80%); in 12 it is no better than chance.'
    """
    noise = f"; in {facts.noise} it is no better than chance" if facts.noise else ""
    of = f"{facts.decided} of {facts.groups} pruned groups ({facts.fraction:.0%})"
    return f"Separability decided {of}{noise}."


def reasons(rows: Sequence[LayerRow]) -> dict[str, list[str]]:
    """Return why layers were left alone or fell back: status and reason -> names of the layers."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            found.setdefault(f"{row.status} ({row.reason})", []).append(row.label)
    return found


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


def distilled(facts: DistillationFacts) -> str:
    """Return how the pruned model learnt from the dense one, in words.

    >>> distilled(DistillationFacts(12, 1.0, 0.5))
    'Learnt from the dense model too, from epoch 13 on: weight 1 of its outputs, 0.5 of features.'
    """
    weights = f"weight {facts.outputs:g} of its outputs, {facts.features:g} of features"
    return f"Learnt from the dense model too, from epoch {facts.epoch + 1} on: {weights}."


def imitated(facts: LabelFreeFacts) -> str:
    """Return what steps without labels brought, in words.

    >>> imitated(LabelFreeFacts(300, 250, 0.81, 0.93))
    'Steps without labels: 250 of 300 kept, agreement with the dense model .810 to .930.'
    >>> imitated(LabelFreeFacts(150, 0, 0.81, 0.81))
    'Steps without labels: all 150 taken back, agreement with the dense model stays .810.'
    """
    before, after = (f"{value:.3f}".removeprefix("0") for value in (facts.before, facts.after))
    if not facts.kept:
        taken = f"all {facts.steps} taken back, agreement with the dense model stays {before}"
        return f"Steps without labels: {taken}."
    kept = f"{facts.kept} of {facts.steps} kept"
    return f"Steps without labels: {kept}, agreement with the dense model {before} to {after}."


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


def how_to_load(rows: Sequence[CheckpointRow], module: str | None = None) -> str:
    """Return the sentence that says how the cut model is loaded: the best file, else the latest."""
    files = [row.file for row in rows if row.holds == "cut"]
    best = [row.file for row in rows if row.holds == "cut" and row.metric is not None]
    file = next(iter([*best, *files]), None)
    if file is None:
        return (
            "To keep the cut model: trainer.save_checkpoint(PATH); to load it: "
            f"lightning_prune.load_pruned({module or 'CLASS'}, PATH)"
        )
    return f"To load the cut model: lightning_prune.load_pruned({module or 'CLASS'}, {file!r})"
