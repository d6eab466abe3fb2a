"""Where an interrupted run continues, and what it has from before."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from lightning_prune.errors import ConfigError
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.runs.checkpoint.newest_checkpoint import CheckpointSearch, search_checkpoints
from lightning_prune.runs.configuration.run_facts import RunFacts
from lightning_prune.runs.configuration.set_plain import set_plain
from lightning_prune.runs.run_result import RESULT

# What a run that starts over would mix with its own files.
_LEFT = (
    "checkpoints",
    "metrics.csv",
    "hparams.yaml",
    "pruning_report.json",
    "figures",
    RESULT,
    "weights_metrics.json",
    "wandb_id.txt",
)
# Keys that differ whenever a run continues.
_NO_CHANGE = {"resume", "ckpt_path", "model.weights"}


@dataclass(frozen=True)
class RunStart:
    """Where a run continues.

    Attributes:
        checkpoint: The file.
        config: What `config.yaml` of the folder said until now.
        hyper_parameters: Those of the model in the file.
    """

    checkpoint: Path
    config: dict[str, Any]
    hyper_parameters: dict[str, Any]

    def changes(self, config: Mapping[str, Any]) -> list[str]:
        """Return a line for each key whose value is another one than until now."""
        old, new = dict(_flat(self.config)), dict(_flat(config))
        keys = [key for key in {**old, **new} if key not in _NO_CHANGE]
        absent = "absent"
        return [
            f"{key}: {old.get(key, absent)} -> {new.get(key, absent)}"
            for key in keys
            if old.get(key, absent) != new.get(key, absent)
        ]


def find_start(folder: Path) -> RunStart | None:
    """Return where the run in a folder continues; None: no intact checkpoint, it starts over.

    Says which files were passed over. What a run that starts over would mix with its own files is
    moved to `earlier_1`, `earlier_2`, ... in the folder.

    Raises:
        ConfigError: the disk could not read a file that may be the newest.
    """
    search = search_checkpoints(folder)
    for path, reason in search.skipped.items():
        if not reason.startswith("nothing to continue from"):
            _say(f"{path} is passed over: {reason}")
    _refuse_disk(folder, search)
    if search.path is None:
        _say(f"no intact checkpoint in {folder}: the run starts over")
        set_aside(folder)
        return None
    content = read_checkpoint(search.path, "meta")
    step, epoch = content["global_step"], content["epoch"]
    _say(f"continuing from {search.path} (step {step}, epoch {epoch})")
    hyper_parameters = content.get("hyper_parameters", {})
    return RunStart(search.path, RunFacts.of(folder).config, dict(hyper_parameters))


def _refuse_disk(folder: Path, search: CheckpointSearch) -> None:
    """Refuse to continue without files that may be intact: their work would be trained again."""
    reasons = [f"{path} ({search.skipped[path]})" for path in sorted(search.disk)]
    for inner in (folder, folder / "checkpoints"):
        try:
            os.listdir(inner)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            reasons.append(f"{inner} ({error.strerror})")
    if reasons:
        raise ConfigError(
            f"the disk could not read {', '.join(reasons[:3])}: the run would continue from "
            "an older state, or start over. Give the command again when it can be read, or move it "
            "out of the folder"
        )


@rank_zero_only
def set_aside(folder: Path) -> None:
    """Move what an earlier run left in a folder out of the way; nothing is deleted."""
    left = [folder / name for name in _LEFT if (folder / name).exists()]
    if left:
        number = 1 + sum(1 for _ in folder.glob("earlier_*"))
        target = folder / f"earlier_{number}"
        target.mkdir()
        for path in left:
            path.rename(target / path.name)
        _say(f"what was in {folder} is now in {target}")


def take_up(cfg: DictConfig, start: RunStart, keep_epochs: bool) -> None:
    """Fill in what a run that continues has from its checkpoint instead of from `model.weights`.

    Args:
        cfg: The configuration; `ckpt_path` and what the weights said of the model are filled in.
        start: Where the run continues.
        keep_epochs: Whether `dense_epochs` stays what it was: 0 by itself for a model that came
            trained, whose weights are not read again.
    """
    cfg.ckpt_path = str(start.checkpoint)
    planned = start.config.get("dense_epochs")
    if isinstance(planned, int) and keep_epochs:
        cfg.dense_epochs = planned
    if cfg.model.get("weights") is None:
        return
    cfg.model.weights = None
    for key, value in cfg.model.items():
        if value is None and start.hyper_parameters.get(str(key)) is not None:
            set_plain(cfg.model, str(key), start.hyper_parameters[str(key)])


@rank_zero_only
def say_changes(cfg: DictConfig, start: RunStart) -> None:
    """Print each key whose value is another one than before the interruption."""
    config = OmegaConf.to_container(cfg, resolve=True)
    if isinstance(config, dict) and start.config:
        for change in start.changes({str(key): value for key, value in config.items()}):
            print(f"changed since then: {change}", flush=True)


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
