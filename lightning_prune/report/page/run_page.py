"""`report.html`: one run on one page."""

import shlex
from pathlib import Path
from typing import Any

from lightning_prune.files import write_bytes
from lightning_prune.report.page.curves import panels
from lightning_prune.report.page.facts_table import (
    common_prefix,
    pairs,
    refusals,
    set_by,
    status_class,
)
from lightning_prune.report.page.layer_numbers import (
    largest_separability,
    layer_numbers,
    shared_classes,
)
from lightning_prune.report.page.render import render
from lightning_prune.report.page.sample_figures import sample_figures
from lightning_prune.report.page.stored_run import StoredRun, read_run
from lightning_prune.report.page.verdict import verdict
from lightning_prune.report.report_data import ReportData
from lightning_prune.report.sentences import (
    distilled,
    how_to_load,
    imitated,
    what_separability_decided,
)

PAGE = "report.html"
VERSION = 1
LIMIT = 500_000
"""Bytes that a page may have; above, it says less of each layer."""
_LEVELS = 4


def write_page(folder: Path) -> Path:
    """Draw ``report.html`` from what a run's folder holds, whole or not at all; return its path.

    Raises:
        ConfigError: it is no folder of a run.
        ValueError: its report is of another version.
    """
    path = folder / PAGE
    write_bytes(path, run_page(read_run(folder)).encode())
    return path


def run_page(run: StoredRun) -> str:
    """Return the page of a run; what it does not have is left out.

    A page that would be larger than ``LIMIT`` leaves out single channels' separability, then the
    embedding, then all that is drawn of opened layers; the files in ``report_data/`` hold it.
    """
    page = ""
    for level in range(_LEVELS):
        page = render("run.html.jinja", **_context(run, level))
        if len(page.encode()) <= LIMIT:
            break
    return page


def _context(run: StoredRun, level: int) -> dict[str, Any]:
    report = run.report
    layers = {}
    if level < _LEVELS - 1:
        layers = {group: layer_numbers(stored, level) for group, stored in run.decisions.items()}
    usage = None if report is None else report.usage
    return {
        "title": run.folder.resolve().name,
        "run": run,
        "report": report,
        "verdict": verdict(run),
        "pairs": pairs(run),
        "panels": panels(run),
        "samples": sample_figures(run.samples, run.cells),
        "rows": _rows(report),
        "widest": max((row.channels_before for row in report.layers), default=1) if report else 1,
        "prefix": common_prefix([row.label for row in report.layers]) if report else "",
        "refusals": {} if report is None else refusals(report),
        "notes": [] if report is None else _notes(report),
        "deploy": None if report is None or report.cut is None else _deploy(run, report),
        "command": _command(run),
        "usage": usage,
        "usage_rows": [] if usage is None else _usage_rows(report),
        "level": level,
        "data": {
            "version": VERSION,
            "layers": layers,
            "largest": largest_separability(layers),
            "classes": shared_classes(layers),
            "history": None if run.history is None else vars(run.history),
        },
    }


def _rows(report: ReportData | None) -> list[dict[str, Any]]:
    if report is None:
        return []
    return [
        {"row": row, "set_by": set_by(row), "status": status_class(row)} for row in report.layers
    ]


def _notes(report: ReportData) -> list[str]:
    """Return what else happened, a sentence each."""
    notes = []
    if report.separability is not None:
        notes.append(what_separability_decided(report.separability))
    if report.label_free is not None:
        notes.append(imitated(report.label_free))
    if report.distillation is not None:
        notes.append(distilled(report.distillation))
    cut = report.cut
    if cut is not None:
        text = f"Channels were cut at the start of epoch {cut.epoch + 1}"
        if cut.output_difference is not None:
            text += f"; masked and cut model differ by {cut.output_difference:.1e} of the output"
        notes.append(f"{text}.")
        if cut.mixed_by:
            notes.append(f"Norms over cut channels: {', '.join(cut.mixed_by)}.")
    return notes


def _deploy(run: StoredRun, report: ReportData) -> dict[str, Any]:
    files = [row for row in report.checkpoints if row.holds == "cut"]
    best = next((row for row in files if row.metric is not None), None)
    file = best or next(iter(files), None)
    lean = None if file is None else Path(file.file).with_suffix(".safetensors")
    return {
        "file": file,
        "lean": lean if lean is not None and (run.folder / lean).is_file() else None,
        "sentence": how_to_load(report.checkpoints, report.module),
    }


def _command(run: StoredRun) -> str | None:
    return f"python train.py {shlex.join(run.command)}".strip() if run.command else None


def _usage_rows(report: ReportData | None) -> list[dict[str, Any]]:
    """Return the layers with channels that were unused at the end or reset."""
    assert report is not None
    assert report.usage is not None
    rows = [
        {
            "name": name,
            "channels": row.channels[-1],
            "unused": row.channels[-1] - row.used[-1],
            "reset": sum(row.reset),
        }
        for name, row in report.usage.layers.items()
    ]
    return [row for row in rows if row["unused"] or row["reset"]]
