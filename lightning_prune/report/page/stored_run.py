"""What the folder of a run holds, as far as it is there: runs of earlier versions hold less."""

import csv
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_prune.errors import ConfigError
from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_json import read_json
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.report.history import History
from lightning_prune.report.report_data import FILE, ReportData
from lightning_prune.report.stored_decision import FOLDER, StoredDecision, read_decision

SAMPLES = "samples.json"
_PARTS = (FILE, "result.json", "metrics.csv", "job.json")


@dataclass(frozen=True)
class StoredRun:
    """A run as its folder has it; None or empty: not there.

    Attributes:
        folder: The folder.
        plain: Content of ``pruning_report.json`` as it was written.
        report: The same, read.
        history: The run epoch by epoch, from the report or from ``metrics.csv``.
        decisions: Group -> what its choice rests on.
        samples: Content of ``report_data/samples.json``.
        command: Words with which ``train`` was started.
        result: Content of ``result.json``.
        job: Content of ``job.json``, of a job of a sweep.
        cells: Content of ``bits_per_spike_paired.json``.
        config_digest: SHA-256 of ``config.yaml``.
    """

    folder: Path
    plain: dict[str, Any] | None = None
    report: ReportData | None = None
    history: History | None = None
    decisions: dict[str, StoredDecision] = field(default_factory=dict)
    samples: dict[str, Any] | None = None
    command: tuple[str, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] | None = None
    cells: dict[str, Any] | None = None
    config_digest: str | None = None

    @property
    def monitor(self) -> str | None:
        """Return the metric that the run is judged by."""
        named = self.result.get("monitor")
        rows = [] if self.report is None else self.report.checkpoints
        return named or next((row.monitored for row in rows if row.monitored), None)


def is_run(folder: Path) -> bool:
    """Return whether a folder holds something of a run that a page can show."""
    return any((folder / part).is_file() for part in _PARTS)


def read_run(folder: Path, decisions: bool = True) -> StoredRun:
    """Read a run's folder.

    Args:
        folder: The folder.
        decisions: Whether the numbers of all decisions are read too.

    Raises:
        ConfigError: it is no folder of a run.
        ValueError: its report is of another version.
    """
    if not is_run(folder):
        raise ConfigError(
            f"{folder} is no folder of a run: it holds none of {', '.join(_PARTS)}. Give the "
            "folder that has config.yaml in it, such as outputs/DATE/TIME"
        )
    plain = read_json(folder / FILE)
    if plain is None and (folder / FILE).is_file():
        raise ConfigError(f"{folder / FILE} cannot be read as JSON: restore it, or run again")
    report = None if plain is None else ReportData.from_plain(plain)
    found: dict[str, StoredDecision] = {}
    if report is not None and decisions:
        for group, channels in {row.group: row.channels_before for row in report.layers}.items():
            stored = read_decision(folder, group)
            # Of another run in the same folder, it may be of another width.
            if stored is not None and channels % stored.facts["channels"] == 0:
                found[group] = stored
    history = None if report is None else report.history
    return StoredRun(
        folder=folder,
        plain=plain,
        report=report,
        history=history or _history(folder, report),
        decisions=found,
        samples=read_json(folder / FOLDER / SAMPLES),
        command=_command(folder),
        result=read_json(folder / "result.json") or {},
        job=read_json(folder / "job.json"),
        cells=read_json(folder / "bits_per_spike_paired.json"),
        config_digest=_digest(folder / "config.yaml"),
    )


def _command(folder: Path) -> tuple[str, ...]:
    kept = read_json(folder / "command.json") or {}
    words = kept.get("task")
    if words is None:
        try:
            words = read_yaml(folder / ".hydra" / "overrides.yaml")
        except (OSError, FileError):
            words = None
    return tuple(map(str, words)) if isinstance(words, list) else ()


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _history(folder: Path, report: ReportData | None) -> History | None:
    """Return the epochs of ``metrics.csv``, of runs that kept no history of their own."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return None
    epochs: dict[int, dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            epoch = _number(row.get("epoch"))
            if epoch is None:
                continue
            read = {str(name): _number(text) for name, text in row.items() if name}
            known = {name: value for name, value in read.items() if value is not None}
            epochs.setdefault(int(epoch), {}).update(known)
    history = History()
    for epoch, values in sorted(epochs.items()):
        rates = [value for name, value in values.items() if name.startswith("lr-")]
        metrics = {
            name: value
            for name, value in values.items()
            if name not in ("epoch", "step") and not name.startswith(("lr-", "test/"))
        }
        fraction = _macs_fraction(epoch, values, report)
        history.add(epoch, metrics, max(rates, default=None), fraction)
    return history if history.epochs else None


def _macs_fraction(
    epoch: int, values: Mapping[str, float], report: ReportData | None
) -> float | None:
    if report is None:
        return values.get("pruning/macs")
    if report.cut is not None and epoch >= report.cut.epoch:
        return report.macs_fraction
    if report.first_mask_epoch is not None and epoch < report.first_mask_epoch:
        return 1.0
    return values.get("pruning/macs")


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
