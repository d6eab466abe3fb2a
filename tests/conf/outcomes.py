"""What becomes of a configuration: carried up to its first training batch, and no further."""

import contextlib
import io
import re
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
from lightning.pytorch.strategies.launchers import multiprocessing, subprocess_script
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.regularizing_stage import RegularizingStage
from lightning_prune.cli.train import run
from lightning_prune.errors import ConfigError, DataError

MEMORY = 6 << 30  # bytes that a mutated configuration may take on top of what is in use
# What a library says of itself when nobody has put it into the words of the user.
UNCLEAR = [
    "Traceback",
    "full_key",
    "object_type",
    "Error instantiating",
    "Error in call",
    "<class ",
    " object at 0x",
    "__init__",
    "unexpected keyword",
    "not supported between",
    "has no attribute",
]
NO_EFFECT = r"no effect|nothing|no slice|no layer"


class Started(BaseException):
    """Training was about to take its first batch."""


class Outcome(NamedTuple):
    """How far a configuration came.

    Attributes:
        started: The first batch was reached.
        refused: The message of a refusal before it; None: there was none.
        acts: A stage of pruning acts in the epochs of the run that was started.
        warned: What was warned of.
    """

    started: bool
    refused: str | None
    acts: bool
    warned: list[str]

    def fault(self, tree: dict[str, Any], names: list[str]) -> str | None:
        """Say what is wrong with this end of a mutated configuration; None: nothing.

        Args:
            tree: The configuration.
            names: Keys that were changed: a refusal names one of them.
        """
        if self.refused is not None:
            return _fault_of_message(self.refused, names)
        if not self.started:
            return "it ended without training, without a word"
        warned = any(re.search(NO_EFFECT, text) for text in self.warned)
        if tree.get("pruning") and not self.acts and not warned:
            return "it trains dense, without a word"
        return None


def _fault_of_message(message: str, names: list[str]) -> str | None:
    unclear = [words for words in UNCLEAR if words in message]
    if unclear:
        return f"it speaks of {unclear}: {message}"
    if not re.match(r"[\w.\[\]]+[=:, ]", message):
        return f"it names no key: {message}"
    if not any(name in message for name in names):
        return f"it names none of {names}: {message}"
    return None


def outcome(tree: dict[str, Any]) -> Outcome:
    """Run a configuration up to its first batch; whatever is no refusal is passed on."""
    trainers: list[L.Trainer] = []
    started, refused = False, None
    with stopped(trainers), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run(_config(tree))
        except Started:
            started = True
        except (ConfigError, DataError) as error:
            refused = str(error)
    acts = any(_acts(callback, trainers[0]) for callback in _callbacks(trainers))
    return Outcome(started, refused, acts, [str(one.message) for one in caught])


def _config(tree: dict[str, Any]) -> DictConfig:
    """Return what Hydra would hand over: to read a key that is not there is an error."""
    cfg = OmegaConf.create(tree)
    OmegaConf.set_struct(cfg, True)
    return cfg


@contextlib.contextmanager
def stopped(trainers: list[L.Trainer]) -> Iterator[None]:
    def stop(self: L.LightningModule) -> None:
        trainers.append(self.trainer)
        raise Started

    def launch(self: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        # Other processes would run the whole test session once more.
        trainers.append(kwargs["trainer"])
        raise Started

    def step(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("a batch was trained on")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        # The module's hook comes behind those of all callbacks.
        patch.setattr(L.LightningModule, "on_train_start", stop)
        patch.setattr("lightning_prune.detection.module.DetectionModule.training_step", step)
        patch.setattr(subprocess_script._SubprocessScriptLauncher, "launch", launch)
        patch.setattr(multiprocessing._MultiProcessingLauncher, "launch", launch)
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)


def _callbacks(trainers: list[L.Trainer]) -> list[Any]:
    return list(trainers[0].callbacks) if trainers else []  # type: ignore[attr-defined]


def _acts(callback: Any, trainer: L.Trainer) -> bool:
    """Tell whether a callback masks, regularizes or tracks in one of the run's epochs."""
    start = getattr(getattr(callback, "schedule", None), "start_epoch", None)
    if start is None and isinstance(callback, RegularizingStage | ChannelResetter):
        start = callback.start_epoch
    most = trainer.max_epochs
    return start is not None and (most is None or most < 0 or start < most)
