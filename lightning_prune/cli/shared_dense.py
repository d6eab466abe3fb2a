"""Which jobs of a sweep have their dense epochs in common."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from lightning_prune.cli.given import was_given
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.runs.sweep.dense_store import DenseEpochs, DenseStore, opened

# All that a run is built from; where its output goes is no part of it.
_BUILT = ("seed", "monitor", "dense_epochs", "recovery_epochs", "data", "model", "trainer")
_OUTPUT = "OUTPUT"
# Which channels can be pruned depends on these, and is in the report from the start.
_SHAPING = ("norms", "attention")


def shared_dense(cfg: DictConfig) -> AbstractContextManager[DenseStore | None]:
    """Return where a job of a sweep finds, or leaves, dense epochs that other jobs need too.

    Args:
        cfg: The composed configuration of the job.
    """
    wanted = cfg.get("share_dense", True) and cfg.task == "train" and cfg.get("ckpt_path") is None
    prunes = bool(cfg.get("pruning")) and cfg.recovery_epochs > 0 and cfg.dense_epochs > 0
    if not wanted or not prunes or not HydraConfig.initialized():
        return opened(None)
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        return opened(None)
    sweep = Path(hydra_config.runtime.cwd, hydra_config.sweep.dir)
    return opened(DenseStore.of(sweep, Path(cfg.output_dir), dense_facts(cfg)))


def dense_facts(cfg: DictConfig) -> dict[str, Any]:
    """Return all that training depends on until the dense epochs are over, as plain data.

    Stages that change nothing before are left out (``acts_from``): those behind the masks, and
    maskers whose ``start_epoch`` is not before that epoch.

    Args:
        cfg: The composed configuration of a run.
    """
    own = cfg.copy()
    own.output_dir = _OUTPUT
    plain: Any = OmegaConf.to_container(own, resolve=True)
    stages = {name: node for name, node in (plain.get("pruning") or {}).items() if node}
    waiting = {name for name, node in stages.items() if _waits(node, cfg.dense_epochs)}
    return {
        **{key: plain.get(key) for key in (*_BUILT, "callbacks", "logger")},
        # Without an override it is 0 for a model that comes trained.
        "given": was_given("dense_epochs"),
        "stages": {name: node for name, node in stages.items() if name not in waiting},
        "shaping": sorted(
            {
                f"{key}={node[key]}"
                for name, node in stages.items()
                if name in waiting
                for key in _SHAPING
                if key in node
            }
        ),
    }


def keep_dense(
    store: DenseStore | None, epochs: int, callbacks: Iterable[Callback]
) -> list[Callback]:
    """Return the callback that keeps the dense epochs of a run, where they can be kept."""
    if store is None:
        return []
    if epochs == 0 or not any(isinstance(one, ExactResume) for one in callbacks):
        store.close()
        return []
    return [DenseEpochs(store, epochs)]


def _waits(node: Mapping[str, Any], epoch: int) -> bool:
    acts_from = getattr(hydra.utils.get_class(node["_target_"]), "acts_from", None)
    if acts_from == "start_epoch":
        return bool(node.get("start_epoch", 0) >= epoch)
    return acts_from == "masks"
