"""What a multirun does besides running jobs: it outlives failures and ends with one table."""

import json
import logging
import os
import socket
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.errors import ConfigError, DataError
from lightning_prune.files.read_json import read_json
from lightning_prune.files.write_json import write_json
from lightning_prune.runs.resume.run_start import set_aside
from lightning_prune.runs.run_lock import run_lock
from lightning_prune.runs.run_result import RESULT
from lightning_prune.runs.sweep.dense_store import clear
from lightning_prune.runs.sweep.sweep_state import SweepState, find_sweep, plain_words
from lightning_prune.runs.sweep.sweep_table import print_sweep, sweep_rows, write_sweep

JOB = "job.json"
log = logging.getLogger(__name__)


class SweepCallback(Callback):
    """Compare the jobs of a multirun in one table; `hydra.callbacks` of conf/train.yaml names it.

    Each job writes `job.json` into its folder, in the process and on the machine where it runs;
    the table is built from these files, printed, and written as `sweep.json` and `sweep.csv` into
    the sweep's folder. Hydra ends a sweep at the first job that raised, without a word about the
    others; here a job that fails is logged, the others run, and the exit code says so: 2 where
    configurations were refused and nothing else went wrong, else 1. Single runs are left alone.

    A sweep that was killed is resumed by its own command: jobs with a result are not run again,
    jobs that were killed continue from their last checkpoint, failed jobs and the others start.
    The same holds for a job whose launcher starts it again, as submitit does.

    Args:
        page: Path of a function that draws the sweep, given its folder and those of its jobs; None:
            nothing is drawn.
    """

    _open: ClassVar["SweepCallback | None"] = None
    # Of the class: launchers send callbacks to other processes.
    _locks: ClassVar[ExitStack] = ExitStack()

    def __init__(self, page: str | None = None) -> None:
        self._page = page
        self._sweep = ""
        self._folder = Path()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Resume the sweep of the same command that was killed, or name a new one.

        Its name distinguishes its jobs from older ones in its folder.

        Raises:
            SystemExit: a process of that sweep still runs, and its folder was asked for.
        """
        try:
            found = find_sweep(config)
            self._folder = Path(config.hydra.sweep.dir).absolute()
            SweepCallback._locks.enter_context(run_lock(self._folder))
        except ConfigError as error:  # Hydra would make a warning of it
            print(error, file=sys.stderr)
            raise SystemExit(2) from error
        self._sweep = uuid.uuid4().hex if found is None else found.sweep
        SweepState.of(config, self._sweep).write(self._folder)
        SweepCallback._open = self

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record that the job has begun: one that is killed leaves no more than this."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        folder = _output_folder(config)
        old = read_json(Path(config.hydra.runtime.output_dir, JOB))
        known = old is not None and self._is_same(old, config)
        if known and old is not None and old["status"] == "ok" and old["result"] is not None:
            return  # the task finds it there, and does nothing
        goes_on = known and old is not None and old["status"] == "unfinished"
        if not goes_on and old is not None:
            set_aside(folder)
        (folder / RESULT).unlink(missing_ok=True)
        reason = "its process ended without a result; its folder may hold a log"
        self._write(config, "unfinished", reason, goes_on=goes_on)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record how the job ended, and keep a failure from ending the sweep."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        if job_return.status == JobStatus.COMPLETED:
            self._write(config, "ok", None)
            return
        error = job_return._return_value
        refused = isinstance(error, ConfigError | DataError | HydraException)
        reason = str(error) if refused else f"{type(error).__name__}: {error}"
        log.error(
            "job %s failed: %s", config.hydra.job.num, reason, exc_info=None if refused else error
        )
        self._write(config, "failed", reason, refused)
        # Exceptions may not survive the way back from another process; the files say it all.
        job_return.return_value, job_return.status = None, JobStatus.COMPLETED

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table.

        Raises:
            SystemExit: a job failed.
        """
        jobs = self._finish()
        finished = bool(jobs) and all(job["status"] == "ok" for job in jobs)
        SweepState.of(config, self._sweep, finished).write(self._folder)
        if finished:
            clear(self._folder)
        failed = [job for job in jobs if job["status"] != "ok"]
        if failed:
            raise SystemExit(2 if all(job["refused"] for job in failed) else 1)

    @classmethod
    def close(cls) -> None:
        """Show the table of a sweep that was interrupted, as far as it came."""
        if cls._open is not None:
            cls._open._finish()

    def _is_same(self, job: dict[str, Any], config: DictConfig) -> bool:
        """Return whether a `job.json` is of this job of this sweep: YAML files may have changed."""
        now = plain_words(config.hydra.overrides.task)
        return bool(job["sweep"] == self._sweep and plain_words(job["overrides"]) == now)

    def _write(
        self,
        config: DictConfig,
        status: str,
        reason: str | None,
        refused: bool = False,
        goes_on: bool = False,
    ) -> None:
        result = _output_folder(config) / RESULT
        content = {
            "sweep": self._sweep,
            "job": config.hydra.job.num,
            "overrides": [str(word) for word in config.hydra.overrides.task],
            "status": status,
            "reason": reason,
            "refused": refused,
            "goes_on": goes_on,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "result": json.loads(result.read_text()) if result.is_file() else None,
        }
        write_json(Path(config.hydra.runtime.output_dir, JOB), content)

    def _finish(self) -> list[dict[str, Any]]:
        SweepCallback._open = None
        SweepCallback._locks.close()
        read = ((path, json.loads(path.read_text())) for path in sorted(self._folder.rglob(JOB)))
        found = {path.parent: job for path, job in read if job["sweep"] == self._sweep}
        jobs = list(found.values())
        if jobs:
            rows = sweep_rows(jobs)
            write_sweep(self._folder, rows)
            print_sweep(rows)
            self._draw(sorted(found, key=lambda folder: int(found[folder]["job"])))
            print(f"the sweep is in {self._folder}", flush=True)
        return jobs

    def _draw(self, folders: list[Path]) -> None:
        """Draw the page of the sweep: it may not cost the sweep its end."""
        if self._page is None:
            return
        try:
            path = get_method(self._page)(self._folder, folders)
            print(f"the page of the sweep is {path}")
        except Exception as error:
            log.warning("the page of the sweep cannot be drawn: %s", error)


def _output_folder(config: DictConfig) -> Path:
    try:
        return Path(config.output_dir)
    except OmegaConfBaseException:  # a job whose configuration is about to be refused
        return Path(config.hydra.runtime.output_dir)
