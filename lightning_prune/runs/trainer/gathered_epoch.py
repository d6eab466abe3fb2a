"""What a training epoch has gathered so far, of Lightning's private parts: means, gradients."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultMetric,
    _Sync,
)
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_prune.runs.resume.metric_states import metric_states
from lightning_prune.runs.trainer.loop_positions import is_automatic, moment, repeats_epoch_end

_PLAIN = ("fx", "name", "prog_bar", "logger", "on_step")


def running_means(trainer: pl.Trainer) -> dict[str, dict[str, Any]]:
    """Return what ``self.log`` has gathered so far in this training epoch, as plain data."""
    if moment(trainer) == "epoch end" and not repeats_epoch_end(trainer):
        return {}
    found = {}
    for key, metric in trainer.fit_loop.epoch_loop._results.items():
        meta = metric.meta
        if metric.has_reset or not meta.on_epoch:
            continue
        entry = {name: getattr(meta, name) for name in _PLAIN}
        if metric.is_tensor:
            entry["value"] = metric.value.detach().clone()
            entry["count"] = _copy(metric.cumulated_batch_size) if meta.is_mean_reduction else None
        found[key] = entry | {"reduce": meta.reduce_fx.__name__, "metric": meta.metric_attribute}
    return found


def add_means(
    trainer: pl.Trainer, means: dict[str, dict[str, Any]], all_of_them: bool
) -> list[str]:
    """Add what was gathered before an interruption to what is gathered now.

    Args:
        trainer: The running Trainer.
        means: What ``running_means`` returned; what has been added is removed.
        all_of_them: Also what was not logged since; else that stays for the next call.

    Returns:
        What was not logged since and added all the same, to be taken out after the epoch.
    """
    made: list[str] = []
    results = trainer.fit_loop.epoch_loop._results
    device = trainer.strategy.root_device
    for key in [key for key in means if all_of_them or key in results]:
        old = means.pop(key)
        if key not in results:
            results[key] = _result(trainer, old).to(device)
            made.append(key)
        if "value" not in old:
            continue  # a torchmetric, whose state is in the module
        metric, value = results[key], old["value"].to(device)
        if old["reduce"] in ("max", "min"):
            metric.value = metric.meta.reduce_fx(value, metric.value)
        else:
            metric.value = value + metric.value
        if old["count"] is not None:
            metric.cumulated_batch_size = old["count"].to(device) + metric.cumulated_batch_size
        metric._computed, metric.has_reset = None, False
        metric._update_count = max(1, metric._update_count)
    return made


def drop_means(trainer: pl.Trainer, names: list[str]) -> None:
    """Remove means whose epoch is over, before the module logs values of the same names."""
    for name in names:
        trainer.fit_loop.epoch_loop._results.pop(name, None)


def open_metrics(trainer: pl.Trainer) -> dict[str, dict[str, Any]]:
    """Return the states of the torchmetrics that outlive this moment.

    Those that were logged as objects are reset by Lightning at the end of what logged them.
    """
    loop, over = trainer.fit_loop.epoch_loop, moment(trainer) == "epoch end"
    ending = [loop.val_loop._results] if trainer.validating else []
    ending += [loop._results] if over and not repeats_epoch_end(trainer) else []
    logged = {id(r.value) for results in ending for r in results.values() if not r.is_tensor}
    return metric_states(trainer, logged)


def open_gradients(trainer: pl.Trainer) -> dict[str, Tensor] | None:
    """Return the gradients that wait for further batches (``accumulate_grad_batches``), if any.

    Of several processes each has its own, as large as the model: those are not kept.
    """
    if not (is_automatic(trainer) and trainer.fit_loop._should_accumulate()):
        return None
    if trainer.world_size > 1:
        return {}
    parameters = trainer.lightning_module.named_parameters()
    return {name: p.grad.detach().clone() for name, p in parameters if p.grad is not None}


def restore_gradients(trainer: pl.Trainer, gradients: dict[str, Tensor] | None) -> None:
    """Restore what ``open_gradients`` returned."""
    if gradients is None:
        return
    if not gradients:
        rank_zero_warn(
            "the checkpoint was written between batches of one optimizer step "
            "(accumulate_grad_batches): the gradients of those before it are missing in this step"
        )
    for name, parameter in trainer.lightning_module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter)


def known_metrics(trainer: pl.Trainer) -> dict[str, Tensor]:
    """Return what callbacks can monitor: the latest value of each metric."""
    return {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}


def know_metrics(trainer: pl.Trainer, metrics: dict[str, Tensor]) -> None:
    """Restore what ``known_metrics`` returned."""
    trainer._logger_connector._callback_metrics.update(metrics)


def _result(trainer: pl.Trainer, old: dict[str, Any]) -> _ResultMetric:
    """Make what ``self.log`` would make for a value that is not logged again in this epoch."""
    metadata = _Metadata(
        **{name: old[name] for name in _PLAIN},
        reduce_fx=old["reduce"],
        metric_attribute=old["metric"],
    )
    metadata.sync = _Sync()
    result = _ResultMetric(metadata, "value" in old)
    if "value" not in old:
        result.value = trainer.lightning_module.get_submodule(old["metric"])
        result.has_reset, result._update_count = False, 1
    return result


def _copy(value: Any, device: torch.device | None = None) -> Any:
    if isinstance(value, list):
        return [_copy(item, device) for item in value]
    return value.detach().clone().to(device) if isinstance(value, Tensor) else value
