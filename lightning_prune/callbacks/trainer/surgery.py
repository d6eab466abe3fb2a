"""All that the callbacks need of Lightning's private parts, and nothing else."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import (
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.callbacks.trainer.restarted_schedule import RestartedSchedule
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import PrunedChannels, cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.optimizer import assert_bound, clear_statistics, rebind_optimizer


def callbacks_of(trainer: pl.Trainer) -> list[Any]:
    """Return the Trainer's callbacks, in their order."""
    return list(getattr(trainer, "callbacks"))  # noqa: B009 - absent from Lightning's stubs


def maskers(trainer: pl.Trainer) -> list[Any]:
    """Return the maskers: the callbacks with ``plan`` and ``finished``."""
    return [c for c in callbacks_of(trainer) if hasattr(c, "plan") and hasattr(c, "finished")]


def refuse_strategy(trainer: pl.Trainer) -> None:
    """Refuse strategies that shard parameters or load checkpoints after set-up.

    Raises:
        ValueError: the strategy is neither one device nor DDP.
    """
    strategy = trainer.strategy
    plain = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
    # Lightning derives it from DDPStrategy, although it partitions optimizers and parameters.
    if not plain or isinstance(strategy, DeepSpeedStrategy):
        raise ValueError(
            f"{type(strategy).__name__} shards or wraps parameters in a way that channels cannot "
            "be cut from: use strategy='ddp' or a single device"
        )


def refuse_callbacks(trainer: pl.Trainer) -> None:
    """Refuse Lightning's own pruning beside the stages.

    Raises:
        ValueError: there is such a callback.
    """
    if any(isinstance(callback, ModelPruning) for callback in callbacks_of(trainer)):
        raise ValueError(
            "ModelPruning puts masks of its own on the weights (weight_orig, weight_mask), and no "
            "channel can be cut from such a layer: leave it out, or use it in a run of its own "
            "after this one"
        )


def check_order(trainer: pl.Trainer, family: type) -> None:
    """Check that the pruning callbacks come before all others.

    Raises:
        ValueError: another callback precedes one of them; the message says what to move.
    """
    callbacks = callbacks_of(trainer)
    stages = [i for i, callback in enumerate(callbacks) if isinstance(callback, family)]
    ahead = [c for c in callbacks[: max(stages, default=0)] if not isinstance(c, family)]
    # Lightning itself puts these at the front or the back; they do not touch weights.
    ahead = [c for c in ahead if isinstance(c, WeightAveraging | StochasticWeightAveraging)]
    if ahead:
        late = type(callbacks[stages[-1]]).__name__
        raise ValueError(
            f"{type(ahead[0]).__name__} stands before {late} in the list of callbacks: put the "
            "pruning callbacks first, so that averages see masked weights"
        )


def averaged_copies(trainer: pl.Trainer) -> list[nn.Module]:
    """Return the copies of the model that averaging callbacks keep."""
    copies: list[nn.Module] = []
    for callback in callbacks_of(trainer):
        copy = getattr(callback, "_average_model", None)
        if isinstance(callback, WeightAveraging) and copy is not None:
            copies.append(copy.module)
        elif isinstance(callback, StochasticWeightAveraging) and copy is not None:
            copies.append(copy)
    return copies


def mask_averages(trainer: pl.Trainer, groups: ChannelGroups, plan: PruningPlan) -> None:
    """Zero the planned channels in averaged copies: later averages of zeros stay zero."""
    for copy in averaged_copies(trainer):
        ChannelMask(copy, groups, plan).apply()


def restore_averages(
    trainer: pl.Trainer,
    groups: ChannelGroups,
    plan: PruningPlan,
    originals: Mapping[str, Any],
    names: Sequence[str],
) -> None:
    """Give averaged copies the channels that are restored in the model: they hold zeros too."""
    for copy in averaged_copies(trainer):
        mask = ChannelMask(copy, groups, plan)
        mask.remember(originals)
        mask.restore(names)


def save_validated_weights(trainer: pl.Trainer, path: str) -> None:
    """Save a weights-only checkpoint of the model that validation sees: the average, if any.

    ``trainer.save_checkpoint(path, weights_only=True)`` leaves averages out, and a full checkpoint
    from the start of an epoch does not resume where it was written.
    """
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
    for callback in callbacks_of(trainer):
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            checkpoint["state_dict"] = callback._average_model.module.state_dict()
    trainer.strategy.save_checkpoint(checkpoint, path)
    trainer.strategy.barrier("save_validated_weights")


def restart_averages(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Let averages begin anew with the weights and the norm statistics of the model."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            callback._average_model.module.load_state_dict(pl_module.state_dict())
            callback._average_model.n_averaged.zero_()
        elif isinstance(callback, StochasticWeightAveraging):
            if callback._average_model is not None:
                callback._average_model.load_state_dict(pl_module.state_dict())
            if callback.n_averaged is not None:
                callback.n_averaged.zero_()


def cut_everywhere(
    trainer: pl.Trainer, pl_module: pl.LightningModule, groups: ChannelGroups, plan: PruningPlan
) -> PrunedChannels:
    """Cut the live model and its averaged copies, and re-bind the optimizers; DDP by ``rewrap``.

    Raises:
        RuntimeError: an optimizer still holds a parameter from before the cut.
    """
    for copy in averaged_copies(trainer):
        cut_channels(copy, groups, plan)
    pruned = cut_channels(pl_module, groups, plan)
    for optimizer in trainer.optimizers:
        rebind_optimizer(optimizer, pruned)
    assert_bound(trainer.optimizers, pruned)
    restart_averages(trainer, pl_module)
    return pruned


def rewrap(trainer: pl.Trainer) -> None:
    """Build DDP's reducer anew: the old one holds the parameters from before the cut.

    Every rank takes over rank 0's buffers, so that a rank's output may change here.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and strategy.lightning_module is not None:
        strategy.model = strategy.lightning_module
        strategy.configure_ddp()


def broadcast(trainer: pl.Trainer, value: Any) -> Any:
    """Return rank 0's value on every rank."""
    return trainer.strategy.broadcast(value) if trainer.world_size > 1 else value


def gather(trainer: pl.Trainer, value: Any) -> list[Any]:
    """Return the values of all ranks, in the order of the ranks."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


@torch.no_grad()
def average_norms(trainer: pl.Trainer, model: nn.Module) -> None:
    """Give every rank the mean of all ranks' norm statistics: DDP lets them drift apart."""
    if trainer.world_size == 1:
        return
    names = ("running_mean", "running_var")
    found = [getattr(module, name, None) for module in model.modules() for name in names]
    statistics = [value for value in found if isinstance(value, Tensor)]
    if not statistics:
        return
    whole = torch.cat([value.flatten() for value in statistics])
    mean = trainer.strategy.reduce(whole, reduce_op="mean")
    for value, part in zip(statistics, mean.split([len(v) for v in statistics]), strict=True):
        value.copy_(part)


def total(trainer: pl.Trainer, value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, on every rank."""
    if trainer.world_size == 1:
        return value
    summed: Tensor = trainer.strategy.reduce(value, reduce_op="sum")
    return summed


def on_device(trainer: pl.Trainer, batches: Iterable[Any]) -> Iterator[Any]:
    """Give batches the device and the precision that the Trainer itself gives them."""
    module = trainer.lightning_module
    for batch in batches:
        converted = trainer.precision_plugin.convert_input(batch)
        yield trainer.strategy.batch_to_device(
            module._on_before_batch_transfer(converted, dataloader_idx=0)
        )


def forward_context(trainer: pl.Trainer) -> Any:
    """Return the context in which the Trainer's precision runs a forward pass."""
    return trainer.precision_plugin.val_step_context()


def loss_scale(trainer: pl.Trainer, optimizer: Optimizer) -> Tensor | None:
    """Return the factor that gradients still carry before a step; None: none.

    Fused optimizers divide by the gradient scaler's factor themselves, within their step.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    # On the device: reading the number would wait for the backward pass.
    scale: Tensor | None = scaler._get_scale_async()
    return scale


@contextmanager
def training_context(trainer: pl.Trainer) -> Iterator[None]:
    """Run training steps aside: nothing is logged, autocast is off (float16 loses gradients)."""
    module, loggers = trainer.lightning_module, trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    for name in ("log", "log_dict"):
        object.__setattr__(module, name, lambda *_, **__: None)
    try:
        with (
            trainer.precision_plugin.train_step_context(),
            torch.autocast(module.device.type, enabled=False),
        ):
            yield
    finally:
        trainer.loggers = loggers
        for name in ("log", "log_dict"):
            object.__delattr__(module, name)


def stop_before_training(trainer: pl.Trainer) -> None:
    """End a fit from ``on_train_start``, before its first batch."""
    # should_stop alone would train min_epochs first.
    trainer.fit_loop.max_batches = 0
    trainer.should_stop = True


def clear_optimizers(trainer: pl.Trainer) -> None:
    """Forget what every optimizer remembers."""
    for optimizer in trainer.optimizers:
        clear_statistics(optimizer)


def rebuild_optimizers(trainer: pl.Trainer) -> None:
    """Call ``configure_optimizers`` anew."""
    trainer.strategy.setup_optimizers(trainer)


def remaining_steps(trainer: pl.Trainer) -> int | None:
    """Return the number of optimizer steps until training ends, or None where nobody knows."""
    total = trainer.estimated_stepping_batches
    # Without a known length of the loader Lightning answers max_steps, which may be -1.
    if not math.isfinite(total) or total <= trainer.global_step:
        return None
    return int(total) - trainer.global_step


def steps_per_epoch(trainer: pl.Trainer) -> float:
    """Return the number of optimizer steps of an epoch; of those so far where nobody knows."""
    if math.isfinite(trainer.num_training_batches):
        return trainer.num_training_batches / trainer.accumulate_grad_batches
    return trainer.global_step / max(1, trainer.current_epoch)


def restart_schedules(
    trainer: pl.Trainer,
    base_lrs: Sequence[Sequence[float]],
    factor: Callable[[int], float],
    done: int = 0,
) -> None:
    """Replace all schedulers by ``lr = base_lr * factor(step)``, counted from now on.

    Args:
        trainer: The running trainer.
        base_lrs: Learning rate of each group of each optimizer that a factor of 1 stands for.
        factor: Factor at the n-th optimizer step from now.
        done: Optimizer steps since the restart, where it was in an earlier fit.
    """
    schedules = [
        RestartedSchedule(optimizer, factor, rates)
        for optimizer, rates in zip(trainer.optimizers, base_lrs, strict=True)
    ]
    for schedule in schedules:
        schedule.go_to(done)
    trainer.strategy.lr_scheduler_configs = [
        LRSchedulerConfig(schedule, interval="step") for schedule in schedules
    ]


def tell(trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels) -> None:
    """Call ``on_channels_pruned`` on every callback, then on the module, where defined."""
    for listener in [*callbacks_of(trainer), pl_module]:
        hook = getattr(listener, "on_channels_pruned", None)
        if callable(hook):
            hook(trainer, pl_module, pruned)


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
    """Tell Lightning which signal handlers it puts back after the fit."""
    trainer._signal_connector._original_handlers.update(handlers)
