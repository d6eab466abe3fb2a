"""The states of torchmetrics that an unfinished epoch has filled in part."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers.abstract import WrapperMetric

from lightning_prune.runs.trainer.callbacks_of import callbacks_of

_PLAIN = (bool, int, float, Tensor)


def metric_states(trainer: pl.Trainer, without: Collection[int]) -> dict[str, dict[str, Any]]:
    """Return what the metrics of module and callbacks hold, as plain data.

    Args:
        trainer: The running Trainer.
        without: ``id`` of the metrics that Lightning resets right after this moment.
    """
    found = {}
    for name, metric in _metrics(trainer):
        # Wrappers count their updates otherwise, if at all.
        used = metric._update_count or isinstance(metric, WrapperMetric)
        if not used or id(metric) in without:
            continue
        states = {key: _copy(value) for key, value in metric.metric_state.items()}
        entry = {"updates": metric._update_count, "states": states}
        found[name] = entry | {"attributes": _attributes(metric)}
    return found


def restore_metric_states(trainer: pl.Trainer, states: dict[str, dict[str, Any]]) -> None:
    """Restore what ``metric_states`` returned, and warn of metrics that are gone."""
    metrics = dict(_metrics(trainer))
    for name in states.keys() & metrics.keys():
        metric, state = metrics[name], states[name]
        for key, value in (state["states"] | state.get("attributes", {})).items():
            setattr(metric, key, _copy(value, metric.device))
        metric._update_count, metric._computed = state["updates"], None
    gone = sorted(states.keys() - metrics.keys())
    if gone:
        rank_zero_warn(
            f"the checkpoint holds states of metrics that are not there any more: "
            f"{', '.join(gone)}; what they had gathered before the interruption is left out"
        )


def _metrics(trainer: pl.Trainer) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics that are modules, and those that module and callbacks keep otherwise."""
    module = trainer.lightning_module
    for part in module.modules():
        if isinstance(part, MetricCollection):
            # Members of a compute group leave their states to the first of them.
            part.items(keep_base=True, copy_state=False)
    yield from ((name, m) for name, m in module.named_modules() if isinstance(m, Metric))
    yield from _kept_by(vars(module).items(), "")
    for callback in callbacks_of(trainer):
        yield from _kept_by(vars(callback).items(), f"{callback.state_key}/")


def _kept_by(attributes: Iterable[tuple[str, Any]], owner: str) -> Iterator[tuple[str, Metric]]:
    for name, value in attributes:
        entries: Iterable[tuple[Any, Any]] = [("", value)]
        if isinstance(value, list | tuple):
            entries = enumerate(value)
        elif type(value) is dict and name != "_modules":
            entries = value.items()
        for key, entry in entries:
            if isinstance(entry, Metric):
                yield f"{owner}{name}[{key}]", entry


def _attributes(metric: Metric) -> dict[str, Any]:
    """Return what a wrapper counts beside its states, such as the place in a window."""
    if not isinstance(metric, WrapperMetric):
        return {}
    own = {k: v for k, v in vars(metric).items() if isinstance(v, _PLAIN)}
    return {
        k: _copy(v) for k, v in own.items() if k not in vars(_BARE) and k not in metric._defaults
    }


def _copy(value: Any, device: torch.device | None = None) -> Any:
    if isinstance(value, list):
        return [_copy(item, device) for item in value]
    return value.detach().clone().to(device) if isinstance(value, Tensor) else value


class _Bare(Metric):
    """Has the attributes that every metric has."""

    def update(self) -> None:
        """Restore nothing."""

    def compute(self) -> None:
        """Return nothing."""


_BARE = _Bare()
