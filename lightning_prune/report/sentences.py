"""What a report says in sentences, on the terminal and on its page."""

from collections.abc import Sequence

from lightning_prune.report.report_data import (
    CheckpointRow,
    DistillationFacts,
    LabelFreeFacts,
    LayerRow,
    SeparabilityFacts,
)


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
