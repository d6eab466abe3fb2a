"""Log metrics to one CSV file that survives a resume."""

import csv
import shutil
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.files import write_bytes


class AppendingCsvLogger(Logger):
    """Append metrics to `metrics.csv` and keep hyper-parameters in `hparams.yaml`.

    Lightning's own CSVLogger deletes the rows of earlier runs when it opens a folder, so a
    resumed run loses its history. Here rows are appended and written at once. With ``ExactResume``
    among the callbacks a resumed run takes back the rows that were written after its checkpoint
    (they are kept in `metrics.before_resume.csv`) and writes them again; without it a step that is
    repeated appears twice, the later row counts.

    Args:
        save_dir: Folder of both files; created with the first row.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> AppendingCsvLogger(folder).log_metrics({"loss": 2.0}, step=0)
        >>> AppendingCsvLogger(folder).log_metrics({"loss": 1.0, "map": 0.5}, step=1)
        >>> print((Path(folder) / "metrics.csv").read_text())
        step,loss,map
        0,2.0,
        1,1.0,0.5
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self.metrics_file = self._folder / "metrics.csv"
        self._columns, rows = self._read()
        self._rows = len(rows)
        if self.metrics_file.is_file() and not self.metrics_file.read_bytes().endswith(b"\n"):
            self._write(rows[:-1])  # a kill cut the last one short

    @property
    def name(self) -> str:
        """Return the logger's name; no folder is made of it."""
        return ""

    @property
    def version(self) -> str:
        """Return the run's version; no folder is made of it."""
        return ""

    @property
    def save_dir(self) -> str:
        """Return the folder of both files."""
        return str(self._folder)

    @property
    def log_dir(self) -> str:
        """Return the folder of both files."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row.

        Args:
            metrics: Names and values.
            step: The optimizer step the values belong to.
        """
        row = {"step": step, **{key: float(value) for key, value in metrics.items()}}
        new = sorted(key for key in row if key not in self._columns)
        self._folder.mkdir(parents=True, exist_ok=True)
        if new:
            self._rewrite(new)
        with self.metrics_file.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)
        self._rows += 1

    def state_dict(self) -> dict[str, int]:
        """Return the number of rows written so far, for a checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state: dict[str, int]) -> bool:
        """Remove the rows that were written after a checkpoint.

        Returns:
            Whether the file is that of the checkpoint: another one with fewer rows stays as it is.
        """
        self._columns, rows = self._read()
        if len(rows) < state["rows"]:
            return False
        if len(rows) > state["rows"]:
            kept = self.metrics_file.with_name("metrics.before_resume.csv")
            shutil.copyfile(self.metrics_file, kept)
            self._write(rows[: state["rows"]])
        return True

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Write the hyper-parameters of model and data as YAML."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "hparams.yaml"
        known = yaml.safe_load(path.read_text()) if path.is_file() else {}
        given = vars(params) if isinstance(params, Namespace) else params or {}
        plain = {str(key): _plain(value) for key, value in given.items()}
        write_bytes(path, yaml.safe_dump({**(known or {}), **plain}).encode())

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        if not self.metrics_file.is_file():
            return [], []
        with self.metrics_file.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        return list(reader.fieldnames or []), rows

    def _rewrite(self, new: list[str]) -> None:
        rows = self._read()[1]
        self._columns = ["step", *sorted({*self._columns, *new} - {"step"})]
        self._write(rows)

    def _write(self, rows: list[dict[str, str]]) -> None:
        # Written beside and renamed, so that an interruption leaves the old file whole.
        draft = self.metrics_file.with_suffix(".csv.part")
        with draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(self.metrics_file)
        self._rows = len(rows)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
