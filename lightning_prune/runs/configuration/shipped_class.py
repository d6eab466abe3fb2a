"""Which `_target_` may be built though somebody else wrote it."""

import importlib
from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import plugins, profilers, strategies
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

_PACKAGES = ("lightning_prune", "lightning", "torch", "torchmetrics")
# Only modules below these are imported to look; what their packages have already may be named too.
_IMPORTED = ("lightning_prune", "lightning.pytorch", "torch.nn", "torch.optim", "torchmetrics")
_BELOW = tuple(f"{name}." for name in _IMPORTED)
_POLICIES = "lightning_prune.policies"
# What a recipe names. Loggers one by one: others send what they log to an address they are given.
_KINDS: tuple[type, ...] = (
    L.LightningModule, L.LightningDataModule, L.Callback, L.Trainer, Accelerator,
    strategies.Strategy, plugins.Precision, plugins.CheckpointIO, ClusterEnvironment,
    plugins.LayerSync, profilers.Profiler, Optimizer, LRScheduler, Metric, nn.Module,
    CSVLogger, TensorBoardLogger, WandbLogger,
)  # fmt: skip
_OWN_LOGGERS = ("lightning_prune.runs.csv_logger.AppendingCsvLogger",)


def is_shipped_class(name: Any) -> bool:
    """Return whether a name is that of a class which recipes name, of a package that we ship with.

    No module of another package is imported to find out, and no function passes.

    >>> is_shipped_class("lightning.pytorch.callbacks.ModelCheckpoint")
    True
    >>> [is_shipped_class(name) for name in ("torch.load", "os.system", "my_own.Callback")]
    [False, False, False]
    """
    if not isinstance(name, str) or name.partition(".")[0] not in _PACKAGES:
        return False
    found = _find(name)
    if not isinstance(found, type) or found.__module__.partition(".")[0] not in _PACKAGES:
        return False
    own = f"{found.__module__}.{found.__qualname__}"
    is_policy = found.__module__.startswith(f"{_POLICIES}.")
    return is_policy or own in _OWN_LOGGERS or issubclass(found, _KINDS)


def foreign_targets(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the place and the name of every `_target_` that is no shipped class.

    Args:
        node: A configuration as plain data, unresolved: a reference is no name.
        path: Where it stands.
    """
    if isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from foreign_targets(child, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    for key, child in node.items():
        place = f"{path}.{key}" if path else str(key)
        if key == "_target_" and not is_shipped_class(child):
            yield place, child
        else:
            yield from foreign_targets(child, place)


def _find(name: str) -> Any:
    """Return what a dotted name leads to in the packages that it begins with; None: nowhere."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    try:
        found: Any = importlib.import_module(parts[0])
        for count, part in enumerate(parts[1:], 2):
            inner = ".".join(parts[:count])
            if not hasattr(found, part) and f"{inner}.".startswith(_BELOW):
                importlib.import_module(inner)
            found = getattr(found, part)
    except Exception:  # whatever a module says that lacks an optional package
        return None
    return found
