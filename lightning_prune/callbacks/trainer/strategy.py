"""Which strategies and callbacks pruning works with, and DDP's reducer."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy

from lightning_prune.runs.trainer.callbacks_of import callbacks_of


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


def rewrap(trainer: pl.Trainer) -> None:
    """Rebuild DDP's reducer: the old one holds the parameters from before the cut.

    Every rank gets rank 0's buffers, so that a rank's output may change here.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and strategy.lightning_module is not None:
        strategy.model = strategy.lightning_module
        strategy.configure_ddp()
