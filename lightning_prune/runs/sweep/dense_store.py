"""Dense epochs that several jobs of a sweep begin with, trained by the first of them."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.errors import ConfigError
from lightning_prune.files.near_path import near_path
from lightning_prune.files.part_file import PartFile
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.read_json import read_json
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.files.write_json import write_json
from lightning_prune.runs.checkpoint.newest_checkpoint import newest_checkpoint
from lightning_prune.runs.configuration.renamed_keys import translated
from lightning_prune.runs.resume.run_start import RunStart
from lightning_prune.runs.run_lock import run_lock, working_owner
from lightning_prune.runs.say import say

DENSE = "dense"
"""Folder of a sweep for what its jobs have in common."""
_FACTS = "dense.json"
_CONFIG = "run.yaml"
# In the order in which they are copied: a kill in between leaves a run that can be continued.
_PARTS = ("weights_metrics.json", "hparams.yaml", "metrics.csv", "checkpoints")
_LOOK = 1.0
"""Seconds between two looks at what another job trains."""


@dataclass
class DenseStore:
    """What a run is at the end of its dense epochs, for runs that have these in common.

    The first run that needs them holds the folder's lock while it trains them; runs beside it wait.
    A run that begins with them continues from a copy in its own folder, as one that was
    interrupted there: it ends, with ``ExactResume``, as if it had trained them itself.

    Attributes:
        folder: Where they are kept.
        run: The run at hand.
        facts: All that training depends on until then: runs that agree in it share.
        taken: Whether the run began with them.
    """

    folder: Path
    run: Path
    facts: Mapping[str, Any]
    taken: bool = False
    _lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    def of(cls, sweep: Path, run: Path, facts: Mapping[str, Any]) -> "DenseStore":
        """Return that of a sweep for what training depends on."""
        return cls(sweep / DENSE / digest_of(facts)[:12], run, facts)

    def take(self) -> RunStart | None:
        """Return where the run continues behind the dense epochs; None: it trains them itself.

        Waits while another process trains them.
        """
        waited = False
        while True:
            owner = working_owner(self.folder)
            if owner is None:
                with contextlib.suppress(ConfigError):  # another one was faster
                    self._lock.enter_context(run_lock(self.folder))
                    found = self._read()
                    if found is None:
                        return None
                    self.close()
                    return self._copy(found)
            elif not waited:
                waited = True
                say(f"waiting for the dense epochs, which {owner} trains for this job too")
            time.sleep(_LOOK)

    def keep(self, trainer: pl.Trainer) -> None:
        """Keep the checkpoints and logs of the run, if one of them is of this moment.

        What cannot be written warns: the run itself has lost nothing.
        """
        try:
            # A run that was resumed does not hold the lock yet; one that does is let in again.
            with contextlib.suppress(ConfigError), run_lock(self.folder):
                path = newest_checkpoint(self.run)
                if path is not None and not self.taken and self._read() is None:
                    content = read_checkpoint(path, "meta")
                    moment = trainer.global_step, trainer.current_epoch - 1
                    if (content["global_step"], content["epoch"]) == moment:
                        self._write(path.relative_to(self.run))
        except OSError as error:
            rank_zero_warn(
                f"the dense epochs cannot be kept in {self.folder} ({error.strerror or error}): "
                "the other runs of this sweep train them themselves"
            )
        self.close()

    def close(self) -> None:
        """Release the lock: other runs train the dense epochs, if this one has not kept them."""
        self._lock.close()

    def _write(self, checkpoint: Path) -> None:
        files = [
            path.relative_to(self.run)
            for part in _PARTS
            for path in [self.run / part, *sorted((self.run / part).rglob("*"))]
            if path.is_file()
        ]
        for name in files:
            _copy_file(self.run / name, self.folder / name)
        # Under another name: the folder is no run.
        _copy_file(self.run / "config.yaml", self.folder / _CONFIG)
        content = {
            "digest": digest_of(self.facts),
            "checkpoint": checkpoint.as_posix(),
            "files": {name.as_posix(): _file_digest(self.folder / name) for name in files},
            "run": str(self.run),
        }
        write_json(self.folder / _FACTS, content)

    def _read(self) -> dict[str, Any] | None:
        """Return what is kept, if it is whole and of these facts."""
        found = read_json(self.folder / _FACTS)
        if found is None:
            return None
        if found.get("digest") != digest_of(self.facts):
            problem = "they were trained from another configuration"
        else:
            changed = [
                name
                for name, digest in found["files"].items()
                if _file_digest(self.folder / name) != digest
            ]
            problem = f"{', '.join(changed)} changed" if changed else ""
        if not problem:
            return found
        say(f"the dense epochs in {near_path(self.folder)} are trained again: {problem}")
        with contextlib.suppress(FileNotFoundError):
            (self.folder / _FACTS).unlink()
        return None

    def _copy(self, found: Mapping[str, Any]) -> RunStart:
        for name in found["files"]:
            _copy_file(self.folder / name, self.run / name)
        self.taken = True
        path = self.run / found["checkpoint"]
        content = read_checkpoint(path, "meta")
        say(
            f"epochs 1 to {content['epoch'] + 1} are those of {near_path(found['run'])}: this run "
            "has them in common with it (share_dense=false trains them again)"
        )
        config = translated(read_yaml(self.folder / _CONFIG))
        return RunStart(path, config, dict(content.get("hyper_parameters", {})))


class DenseEpochs(pl.Callback):
    """Keep what a run is at the end of its dense epochs; it stands before all stages.

    Args:
        store: Where.
        epochs: How many there are.
    """

    def __init__(self, store: DenseStore, epochs: int) -> None:
        self.store = store
        self.epochs = epochs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Release what cannot be kept: a run of several processes, or one behind that epoch."""
        if trainer.world_size > 1 or trainer.current_epoch > self.epochs:
            self.store.close()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep it before the first epoch that is not dense."""
        if trainer.world_size == 1 and trainer.current_epoch == self.epochs:
            self.store.keep(trainer)


@contextlib.contextmanager
def opened(store: DenseStore | None) -> Iterator[DenseStore | None]:
    """Release in the end what a store holds."""
    try:
        yield store
    finally:
        if store is not None:
            store.close()


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, whatever the order of its keys.

    >>> digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1})
    True
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def clear(sweep: Path) -> None:
    """Remove what the jobs of a sweep had in common."""
    shutil.rmtree(sweep / DENSE, ignore_errors=True)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as file, PartFile(target) as part:
        shutil.copyfileobj(file, part)
        part.commit()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
