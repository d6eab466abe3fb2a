"""Watches that loss and weights stay finite, and ends a run before a bad model is saved."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_prune.runs.non_finite_weights import NonFiniteWeightsError
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.runs.trainer.fit_state import (
    is_fitting,
    put_first,
    save_nothing_on_exception,
    skips_steps,
)
from lightning_prune.runs.trainer.ranks import gather

_STATISTICS = ("running_mean", "running_var")
_ADVICE = (
    "No channel is masked or cut and no checkpoint is written: continue from the last one with a "
    "lower learning rate, gradient_clip_val, a weaker regularizer or a wider precision, and look "
    "for NaN or infinite inputs"
)


@dataclass(frozen=True)
class _Seen:
    """What one process found: NaN or infinite tensors, and the losses of the epoch."""

    tensors: tuple[str, ...]
    first_step: int | None
    steps: int


class FiniteWatch(Callback):
    """End the fit with one error when a weight or a norm statistic is NaN or infinite.

    The pruning stages put it in front of all callbacks by themselves. It looks at the start and at
    the end of every epoch, before validation, and before a checkpoint is written: nothing is
    decided on such weights, and the files that are there stay. The loss of every step is noted on
    the device, without waiting for it, so that the error can say where it began.

    NaN or infinite losses while all weights are finite (the module leaves such steps out) are
    warned of once; with a gradient scaler, which skips such steps, they are no fault. A tensor
    that held infinity, but no NaN, when training started is meant to.

    Raises:
        NonFiniteWeightsError: during the fit, on all processes.
    """

    def __init__(self) -> None:
        self._meant: set[str] = set()
        self._step = 0
        self._first: Tensor | None = None
        self._count: Tensor | None = None
        self._told = False

    # --- hooks ------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record what is infinite on purpose."""
        self._forget()
        self._told, self._meant = False, set()
        self._meant = {
            name for name in _non_finite(pl_module) if not _tensor(pl_module, name).isnan().any()
        }
        self.check(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the weights before a stage decides."""
        self.check(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record which step the batch belongs to: the counter continues within it."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note, on the device, whether the loss was finite."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        bad = ~loss.detach().isfinite().all()
        if self._first is None or self._count is None:
            self._first = torch.full_like(bad, -1, dtype=torch.int64)
            self._count = torch.zeros_like(self._first)
        self._first = torch.where(bad & (self._first < 0), self._step, self._first)
        self._count = self._count + bad

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the weights before a model is validated, and perhaps saved."""
        if is_fitting(trainer):
            self.check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the weights before the epoch's checkpoints; warn of losses that harmed nothing."""
        seen = self.check(trainer, pl_module)
        self._forget()
        if seen.first_step is None or self._told or skips_steps(trainer):
            return
        self._told = True
        rank_zero_warn(
            f"the loss was NaN or infinite in {seen.steps} of the batches of epoch "
            f"{trainer.current_epoch + 1}, first at global step {seen.first_step}; all weights are "
            "finite, so training continues. Look for NaN or infinite inputs or targets. Further "
            "ones are not reported"
        )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the weights before a checkpoint of this fit replaces a good one."""
        if is_fitting(trainer):
            self.check(trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Keep the last good file where a checkpoint would be saved because of the exception."""
        try:
            # This process alone: others may not have met the exception.
            spoilt = bool(self._tensors(pl_module))
        except RuntimeError:
            return  # a device that has failed: nothing can be read, nor saved
        if spoilt:
            save_nothing_on_exception(trainer)

    # --- inside -----------------------------------------------------------------------------

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> _Seen:
        """Inspect all weights and norm statistics; all processes must call it.

        Returns:
            What all processes together have seen in this epoch.

        Raises:
            NonFiniteWeightsError: one of them is NaN or infinite.
        """
        first = -1 if self._first is None else int(self._first)
        count = 0 if self._count is None else int(self._count)
        own = _Seen(self._tensors(pl_module), first if first >= 0 else None, count)
        every = gather(trainer, own)
        tensors = next((seen.tensors for seen in every if seen.tensors), ())
        steps = [seen.first_step for seen in every if seen.first_step is not None]
        joined = _Seen(tensors, min(steps, default=None), max(seen.steps for seen in every))
        if joined.tensors:
            raise NonFiniteWeightsError(_message(trainer, joined))
        return joined

    def _tensors(self, model: nn.Module) -> tuple[str, ...]:
        return tuple(name for name in _non_finite(model) if name not in self._meant)

    def _forget(self) -> None:
        self._first, self._count = None, None


def watch_weights(trainer: pl.Trainer) -> None:
    """Register a watch in front of the Trainer's callbacks, unless there is one."""
    if not any(isinstance(callback, FiniteWatch) for callback in callbacks_of(trainer)):
        put_first(trainer, FiniteWatch())


def check_weights(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Inspect the weights now, between two steps of a stage.

    Raises:
        NonFiniteWeightsError: one of them is NaN or infinite.
    """
    for callback in callbacks_of(trainer):
        if isinstance(callback, FiniteWatch):
            callback.check(trainer, pl_module)


def _message(trainer: pl.Trainer, seen: _Seen) -> str:
    layer, _, tensor = seen.tensors[0].rpartition(".")
    others = f" (and {len(seen.tensors) - 1} more)" if len(seen.tensors) > 1 else ""
    where = f"epoch {trainer.current_epoch + 1}, global step {trainer.global_step}"
    if seen.first_step is None:
        began = "every loss noted since the last look was finite"
    else:
        began = f"the loss was NaN or infinite first at global step {seen.first_step}"
    return (
        f"the weights are NaN or infinite at {where}: first in {tensor} of layer {layer!r}"
        f"{others}; {began}. {_ADVICE}"
    )


def _watched(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all that training cannot repair; other buffers may hold what they like."""
    for prefix, module in model.named_modules():
        own = [*module._parameters.items(), *((n, module._buffers.get(n)) for n in _STATISTICS)]
        for name, value in own:
            if value is not None and value.is_floating_point():
                yield f"{prefix}.{name}" if prefix else name, value.detach()


def _tensor(model: nn.Module, name: str) -> Tensor:
    return dict(_watched(model))[name]


def _non_finite(model: nn.Module) -> list[str]:
    """Return the names of NaN or infinite tensors, front to back; one wait for each device."""
    watched = list(_watched(model))
    flags: dict[torch.device, list[Tensor]] = {}
    places: dict[torch.device, list[int]] = {}
    for number, (_, value) in enumerate(watched):
        flags.setdefault(value.device, []).append(value.isfinite().all())
        places.setdefault(value.device, []).append(number)
    bad: list[int] = []
    for device, values in flags.items():
        finite = torch.stack(values).tolist()
        bad += [place for place, good in zip(places[device], finite, strict=True) if not good]
    return [watched[number][0] for number in sorted(bad)]
