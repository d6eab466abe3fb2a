"""Kill a training at chosen moments, let it continue, compare its end with an undisturbed run's.

The functions of the benchmark ``faults.py``, which describes them, and of ``tests/faults``. What a
training is and how it continues, they leave to a function that starts a process for a folder.
"""

import csv
import json
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.sidecar import Sidecar
from lightning_prune.runs.checkpoint.newest_checkpoint import search_checkpoints

METRICS = "metrics.csv"
# A process that shows no sign of its end after so many seconds hangs.
PATIENCE = 900.0


class Process(Protocol):
    """What the harness needs of a running training; ``subprocess.Popen`` has it."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""

    def wait(self) -> int:
        """Wait for the end and return the exit code."""

    def kill(self) -> None:
        """Send SIGKILL."""


Launch = Callable[[Path], Process]
"""Starts the run of a folder, or continues with it."""


@dataclass(frozen=True)
class Kill:
    """When to kill.

    Attributes:
        when: ``moment``, ``save``, ``replaced`` or ``start``, as above.
        rows: Rows of metrics that must be there first; nothing for ``start``.
        delay: Seconds from then on; at ``start`` from the first file on, at most to the first row.
    """

    when: str
    rows: int
    delay: float


@dataclass(frozen=True)
class Remains:
    """What a kill left in the folder.

    Attributes:
        when: How it was meant.
        rows: Rows of metrics.
        saving: Whether a checkpoint was being written.
        unlogged: Whether the newest checkpoint knows a row that is not in the metrics yet.
        nothing: Whether there is no intact checkpoint to continue from.
        torn: Checkpoints that are not intact.
    """

    when: str
    rows: int
    saving: bool
    unlogged: bool
    nothing: bool
    torn: list[str]


@dataclass(frozen=True)
class Undisturbed:
    """The run to compare with.

    Attributes:
        folder: Where it lies now.
        rows: Rows of metrics that it has written.
        startup: Seconds to the first row.
        seconds: Seconds in all.
    """

    folder: Path
    rows: int
    startup: float
    seconds: float


# --- running and killing ------------------------------------------------------------------------


def undisturbed(launch: Launch, folder: Path) -> Undisturbed:
    """Run to the end and move the folder away, so that the other run can have its path.

    Raises:
        RuntimeError: the run fails.
    """
    begin = time.monotonic()
    process = launch(folder)
    _wait(process, lambda: count_rows(folder) > 0)
    startup = time.monotonic() - begin
    _end(process)
    kept = folder.with_name("undisturbed")
    folder.rename(kept)
    return Undisturbed(kept, count_rows(kept), startup, time.monotonic() - begin)


def plan_kills(count: int, seed: int, run: Undisturbed) -> list[Kill]:
    """Spread kills of all kinds over a run; the last one comes behind its last row."""
    choose = random.Random(seed)
    pause = (run.seconds - run.startup) / run.rows
    kinds = ["save", "moment", "replaced", "save", "start", "replaced"]
    kills = []
    for number in range(count - 1):
        rows = int(run.rows * (number + choose.random()) / count)
        when = kinds[number % len(kinds)]
        if rows > run.rows - 5 and when in ("save", "replaced"):
            when = "moment"  # the last checkpoint is written before the last rows
        delay = {
            "moment": choose.uniform(0, 2 * pause),
            "save": choose.uniform(0, 0.03),
            "replaced": 0.0,
            # Either in the midst of the first files, or on the way to the first row.
            "start": choose.choice([0.0, choose.uniform(0, run.startup / 2)]),
        }[when]
        kills.append(Kill(when, rows, delay))
    return [*kills, Kill("moment", run.rows, choose.uniform(0, pause / 2))]


def disturbed(launch: Launch, folder: Path, kills: Sequence[Kill]) -> Iterator[Remains]:
    """Run to the end through the kills; a run that ends before its next kill is not killed.

    Yields:
        What each kill left.

    Raises:
        RuntimeError: a run ends with an error.
    """
    for kill in kills:
        traces = traces_of_saves(folder)
        if not strike(launch(folder), folder, kill):
            return
        yield look(folder, kill.when, traces)
    _end(launch(folder))


def strike(process: Process, folder: Path, kill: Kill) -> bool:
    """Wait for the moment of a kill, and kill; False: the run ended before.

    Raises:
        RuntimeError: it ended with an error.
    """
    metrics, first = _stamp(folder / METRICS), _first_files(folder)
    if kill.when == "start":
        reached = _wait(process, lambda: _first_files(folder) != first)
        due = time.monotonic() + kill.delay
        reached = reached and _wait(
            process, lambda: time.monotonic() > due or _stamp(folder / METRICS) != metrics
        )
    else:
        reached = _wait(
            process,
            lambda: _stamp(folder / METRICS) != metrics and count_rows(folder) >= kill.rows,
        )
        if kill.when == "save":
            parts = _parts(folder)
            reached = reached and _wait(process, lambda: bool(_parts(folder) - parts))
        elif kill.when == "replaced":
            files = _checkpoints(folder)
            reached = reached and _wait(process, lambda: bool(_checkpoints(folder) - files))
        time.sleep(kill.delay)
    if reached:
        process.kill()
    return _end(process, -signal.SIGKILL) == -signal.SIGKILL


def look(folder: Path, when: str, traces: set[Any]) -> Remains:
    """Read from a folder what a kill met.

    Args:
        folder: The run.
        when: How the kill was meant.
        traces: What ``traces_of_saves`` returned before the killed process began.
    """
    torn = []
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            torn.append(str(error))
    newest = search_checkpoints(folder).path
    return Remains(
        when,
        count_rows(folder),
        bool(traces_of_saves(folder) - traces),
        newest is not None and _is_ahead(newest, count_rows(folder)),
        newest is None,
        torn,
    )


def summary(remains: Sequence[Remains]) -> dict[str, int]:
    """Count what the kills met."""
    return {
        "kills": len(remains),
        "during_a_save": sum(one.saving for one in remains),
        "before_a_row": sum(one.unlogged for one in remains),
        "while_starting": sum(one.when == "start" for one in remains),
        "from_nothing": sum(one.nothing for one in remains),
        "torn": sum(len(one.torn) for one in remains),
    }


def count_rows(folder: Path) -> int:
    """Return the number of whole rows of metrics in a folder."""
    try:
        return max(0, (folder / METRICS).read_bytes().count(b"\n") - 1)
    except FileNotFoundError:
        return 0


def traces_of_saves(folder: Path) -> set[Any]:
    """Return what shows that a checkpoint is, or was when a process ended, being written."""
    files = (folder / "checkpoints").glob("*.ckpt")
    open_ones = {(path.name, _stamp(path)) for path in files if _lists_two(path)}
    return _parts(folder) | open_ones


def _lists_two(path: Path) -> bool:
    return len(Sidecar(path).digests() or ()) > 1


def _parts(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").glob("*.ckpt*.part")}


def _is_ahead(checkpoint: Path, rows: int) -> bool:
    loggers = read_checkpoint(checkpoint).get("exact_resume", {}).get("loggers", [])
    return any(one["row"] is not None and rows <= one["state"]["rows"] for one in loggers)


def _checkpoints(folder: Path) -> set[tuple[str, Any]]:
    return {(path.name, _stamp(path)) for path in (folder / "checkpoints").glob("*.ckpt")}


def _first_files(folder: Path) -> list[Any]:
    """Return what changes when a command begins to write into the folder."""
    names = (".hydra/config.yaml", "config.yaml", "hparams.yaml")
    return [_stamp(folder / name) for name in names]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _wait(process: Process, condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds; False: the process ended before."""
    begin = time.monotonic()
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() - begin > PATIENCE:
            process.kill()
            raise RuntimeError(f"the run did nothing expected for {PATIENCE} s")
        time.sleep(0.0005)
    return True


def _end(process: Process, *other: int) -> int:
    code = process.wait()
    if code not in (0, *other):
        raise RuntimeError(f"the run ended with {code}; its log says more")
    return code


# --- comparing ----------------------------------------------------------------------------------


def compare_runs(ours: Path, theirs: Path) -> list[str]:
    """Return where two finished runs differ, one line each."""
    left, right = _files(ours), _files(theirs)
    found = [f"{name}: only in {ours.name}" for name in sorted(left - right)]
    found += [f"{name}: only in {theirs.name}" for name in sorted(right - left)]
    for name in sorted(left & right):
        found += differences(_content(ours / name), _content(theirs / name), name)
    return found


# Lightning writes it into checkpoints, and nothing reads it: neither a resume nor a decision.
_UNREAD = "current_score"


def differences(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Yield where two nests of tensors and plain values differ, bit by bit."""
    if type(ours) is not type(theirs):
        yield f"{place}: {type(ours).__name__} and {type(theirs).__name__}"
    elif isinstance(ours, Tensor):
        yield from _tensor_difference(ours, theirs, place)
    elif isinstance(ours, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            if key == _UNREAD:
                continue
            if key in ours and key in theirs:
                yield from differences(ours[key], theirs[key], f"{place}/{key}")
            else:
                yield f"{place}/{key}: in one of them only"
    elif isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            yield f"{place}: {len(ours)} and {len(theirs)} entries"
        for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(one, other, f"{place}/{index}")
    elif repr(ours) != repr(theirs):  # tells NaN from a number, and 0.0 from -0.0
        yield f"{place}: {ours!r} and {theirs!r}"


def _tensor_difference(ours: Tensor, theirs: Tensor, place: str) -> Iterator[str]:
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        yield f"{place}: {ours.dtype} {[*ours.shape]} and {theirs.dtype} {[*theirs.shape]}"
        return
    bits, other = (
        value.detach().contiguous().reshape(-1, 1).view(torch.uint8) for value in (ours, theirs)
    )
    wrong = int((bits != other).any(1).sum())
    if wrong:
        apart = (ours.double() - theirs.double()).abs().max().item()
        yield f"{place}: {wrong} of {ours.numel()} values, at most {apart:.3} apart"


def _files(folder: Path) -> set[str]:
    """Return the names of the files that a run is known by; the rest is a journal."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(path)
        for path in files
        if path.parts[0] != ".hydra"
        and not path.parts[0].startswith("earlier_")
        and path.suffix != ".log"
        and path.name != "metrics.before_resume.csv"
    }


def _content(path: Path) -> Any:
    if path.suffix == ".ckpt":
        return read_checkpoint(path)
    if path.name == "seals.json":
        # Digests of files that name the folder of their run, and are compared themselves.
        return sorted(json.loads(path.read_text()))
    if path.name == "pruning_report.json":
        # Checkpoints name the folder of their run, so that their sizes and digests differ.
        report = json.loads(path.read_text())
        for row in report.get("checkpoints", []):
            row["bytes"] = row["sha256"] = None
        return report
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.name == "report.html":
        return path.is_file()  # drawn from the report, and with its digests
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.reader(file))
    if path.name == "config.yaml":
        config = yaml.safe_load(path.read_text())
        return {key: value for key, value in config.items() if key not in ("resume", "ckpt_path")}
    if path.suffix == ".sha256":
        # Equal content may be pickled in another order; and where the last save of a file was
        # killed between its two renames, its old digest stays beside the new one.
        with path.with_suffix("").open("rb") as file:
            return Sidecar(path.with_suffix("")).problem(file)
    return path.read_bytes()
