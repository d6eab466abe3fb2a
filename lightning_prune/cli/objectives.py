"""What a run returns to a sweeper: one number, or several in the order that was asked for."""

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig

from lightning_prune.cli.build import build
from lightning_prune.cli.unknown_key import near_names
from lightning_prune.errors import ConfigError

MACS = "macs"


def check_objectives(cfg: DictConfig, model: L.LightningModule, data: Any) -> None:
    """Refuse, before training, objectives that the run will not know at its end.

    The names of the metrics are those that a validation on one batch logs. What begins with
    `test/` is logged by the test under the same name; what begins with `train/` is known to nobody
    before the training.

    Args:
        cfg: The whole configuration.
        model: The module.
        data: The data module.

    Raises:
        ConfigError: naming the unknown ones and what is allowed.
    """
    wanted = [name for name in cfg.get("objectives") or [] if name != MACS]
    if not any(not name.startswith("train/") for name in wanted):
        return
    known = _logged(cfg, model, data)
    allowed = sorted({MACS, *known, *(name.replace("val/", "test/", 1) for name in known)})
    for name in wanted:
        if name not in allowed and not name.startswith("train/"):
            near = near_names(name, allowed)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(
                f"objectives: {name} is no metric of {type(model).__name__}.{hint} "
                f"Allowed: {', '.join(allowed)}"
            )


def objective_values(
    names: Iterable[str],
    trained: Mapping[str, float],
    tested: Mapping[str, float],
    macs: float | None,
) -> dict[str, float]:
    """Return the objectives of a run that has ended, in their order.

    Args:
        names: What is asked for: metrics, and `macs`, the fraction of the dense MACs that remains.
        trained: The last metrics of the training.
        tested: Those of the test.
        macs: What remains of the dense MACs; None where nothing was cut: of the masked model.

    Raises:
        ConfigError: the run did not log one of them.

    Example:
        >>> objective_values(["macs", "val/acc"], {"val/acc": 0.5, "pruning/macs": 0.25}, {}, None)
        {'macs': 0.25, 'val/acc': 0.5}
    """
    left = trained.get("pruning/macs", 1.0) if macs is None else macs
    known = {**trained, **tested, MACS: left}
    missing = [name for name in names if name not in known]
    if missing:
        raise ConfigError(
            f"objectives: {', '.join(missing)} was not logged by the run; known are "
            f"{', '.join(sorted(known))}"
        )
    return {name: float(known[name]) for name in names}


def returned(values: Mapping[str, float]) -> float | tuple[float, ...]:
    """Return the values as sweepers take them: a tuple of several, the number of one alone."""
    found = tuple(values.values())
    return found if len(found) > 1 else found[0]


def _logged(cfg: DictConfig, model: L.LightningModule, data: Any) -> set[str]:
    """Return the names of what a validation logs; the training is left as it was."""
    options = {"devices": 1, "strategy": "auto", "num_nodes": 1, "limit_val_batches": 1}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = build(cfg.trainer, "trainer", callbacks=[], **options, **quiet)
    with _same_random_numbers():
        trainer.validate(model, datamodule=data, verbose=False)
    return set(trainer.callback_metrics)


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    numbers, numpy_numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(numbers)
        np.random.set_state(numpy_numbers)
