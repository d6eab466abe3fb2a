"""What a sweep's folder says about the sweep, so that its command can take it up again."""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lightning_prune.errors import ConfigError
from lightning_prune.files.read_json import read_json
from lightning_prune.files.write_json import write_json
from lightning_prune.runs.processes import is_alive
from lightning_prune.runs.resume.resume_command import NEVER, quote
from lightning_prune.runs.run_lock import working_owner

STATE = "sweep_state.json"


@dataclass(frozen=True)
class SweepState:
    """One sweep.

    Attributes:
        sweep: Its name, which its jobs carry.
        overrides: Its command line, without options and without `resume`.
        finished: Whether each of its jobs has a result.
        written: When this was written, seconds since 1970.
    """

    sweep: str
    overrides: list[str]
    finished: bool
    written: float

    @classmethod
    def of(cls, config: DictConfig, sweep: str, finished: bool = False) -> "SweepState":
        """Describe the sweep of a configuration."""
        return cls(sweep, plain_words(config.hydra.overrides.task), finished, time.time())

    @classmethod
    def read(cls, folder: Path) -> "SweepState | None":
        """Read what is in a folder; None: no sweep, or one that cannot be resumed."""
        content = read_json(folder / STATE)
        try:
            return None if content is None else cls(**content)
        except TypeError:  # of another version
            return None

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_json(folder / STATE, asdict(self))


def find_sweep(config: DictConfig) -> SweepState | None:
    """Return the sweep of the same command line that is to be resumed; None: a new one starts.

    With a folder per date and time it is the newest sweep with the same overrides, where it is
    unfinished, and the folder of `config` is set to its folder. With `hydra.sweep.dir=FOLDER` it is
    the one in that folder.

    Args:
        config: The whole configuration of the multirun.

    Raises:
        ConfigError: a process of the sweep in the given folder still runs.
    """
    words = [str(word) for word in config.hydra.overrides.task]
    if f"resume={NEVER}" in words:
        return None
    folder = Path(config.hydra.sweep.dir).absolute()
    root = _root(config)
    if root is None:
        found = SweepState.read(folder)
        if found is None or found.overrides != plain_words(words):
            return None
        running = _running(folder, found.sweep)
        if running:
            raise ConfigError(
                f"the sweep in {folder} still runs, in process {running}: wait for it, end it, or "
                "choose another hydra.sweep.dir"
            )
        _say(found, folder)
        return found
    known = [
        (state, path) for path, state in _sweeps(root) if state.overrides == plain_words(words)
    ]
    if not known:
        return None
    found, folder = max(known, key=lambda one: one[0].written)
    if found.finished:
        return None
    running = _running(folder, found.sweep)
    if running:
        print(
            f"the sweep of the same command in {folder} still runs, in process {running}: this is "
            "a new one",
            flush=True,
        )
        return None
    _move(config, folder)
    _say(found, folder)
    return found


def plain_words(words: Iterable[Any]) -> list[str]:
    """Return overrides without `resume`, which says nothing about the runs themselves."""
    return [str(word) for word in words if not str(word).startswith("resume=")]


def _root(config: DictConfig) -> Path | None:
    """Return the folder in which each sweep gets a folder by its date and time, if so."""
    sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    text = str(sweep["dir"]) if isinstance(sweep, dict) else ""
    head, found, _ = text.partition("${now:")
    if not found:
        return None
    raw = OmegaConf.create({"head": head[: head.rfind("/") + 1] or "."}, parent=config)
    return Path(raw["head"]).absolute()


def _sweeps(root: Path) -> Iterator[tuple[Path, SweepState]]:
    for path in root.glob(f"*/*/{STATE}"):
        state = SweepState.read(path.parent)
        if state is not None:
            yield path.parent, state


def _move(config: DictConfig, folder: Path) -> None:
    """Set the folder of the sweep and of its jobs, whose configurations are composed again."""
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote(folder)}")


def _running(folder: Path, sweep: str) -> int | None:
    """Return the process of the sweep, or one on this machine that still runs a job of it."""
    owner = working_owner(folder)
    if owner is not None:
        return owner.process
    for path in folder.rglob("job.json"):
        job = read_json(path) or {}
        if job.get("sweep") != sweep or job.get("status") != "unfinished":
            continue
        process = int(job.get("process", 0))
        if job.get("host") != socket.gethostname():
            print(
                f"job {job['job']} was begun on {job.get('host')}: make sure that it does not run "
                "there any more",
                flush=True,
            )
        elif process != os.getpid() and is_alive(process):
            return process
    return None


def _say(state: SweepState, folder: Path) -> None:
    what = "is complete" if state.finished else "was interrupted"
    print(
        f"A sweep with the same overrides {what}: {folder}\n"
        "It is resumed: finished runs stay, the others continue from their last checkpoints.\n"
        "To start again instead, add resume=never.",
        flush=True,
    )
