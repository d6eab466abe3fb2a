"""Where Lightning handles signals itself."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment


def end_after_batch(trainer: pl.Trainer, end: bool = True) -> None:
    """End the fit with a ``SIGTERMException`` once this batch is complete, or take that back.

    Lightning's own way out: after the batch is counted and logged and a due validation has run;
    behind the last batch of an epoch after the whole end of the epoch. It leaves a validation in
    the middle too. All ranks must call it at the same batch.
    """
    trainer._signal_connector.received_sigterm = end


def requeue_signal(trainer: pl.Trainer) -> int | None:
    """Return the signal at which Lightning itself requeues a SLURM job; None: it does not."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        signum: int | None = environment.requeue_signal
        return signum
    return None


def put_back_at_teardown(trainer: pl.Trainer, handlers: Mapping[Any, Any]) -> None:
    """Set which signal handlers Lightning puts back after the fit."""
    trainer._signal_connector._original_handlers.update(handlers)
