"""Pruning for plain PyTorch loops."""

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lightning_prune.graph.group_listing import group_listing
from lightning_prune.loop.channel_pruner import ChannelPruner, Log
from lightning_prune.loop.channel_sparsity_args import NO_CHANNELS
from lightning_prune.loop.forward_pass import as_forward, example_inputs
from lightning_prune.loop.front_end import Batches, LoopFrontEnd, Loss
from lightning_prune.loop.pruning_config import PruningConfig
from lightning_prune.loop.slice_pruner import SlicePruner
from lightning_prune.loop.slice_sparsity_args import NO_SLICES
from lightning_prune.policies.layers.slice_layers import unmasked_weights
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.step_watch import StepWatch


class Pruning:
    """Channel and slice pruning in a training loop of one's own.

    ``pruning_config.json`` in ``config_folder`` says what is pruned, how and when; see
    ``ChannelSparsityArgs`` and ``SliceSparsityArgs`` for its keys. Channels are masked step by
    step; once the MAC target is met, or the schedule is over, the ``prune`` call of the next epoch
    cuts exactly the masked ones out of the model and writes so to the file.

    What is masked is zero after every step of any ``torch.optim`` optimizer, and after every call
    of ``prune`` and ``channel_regularize``. Weights that a loop writes otherwise may differ from
    zero until the next of these. Copies of the model (averages) are not masked.

    Args:
        model: The model to prune, on its device.
        config_folder: Folder of ``pruning_config.json``.
        forward_fn: How the model is called with inputs of the configured ``input_shape``:
            ``f(x)``, such as ``model.forward``, or ``f(model, x)``; with several inputs ``f(a, b)``
            or ``f(inputs)``. None: the plain call.
        batches: Training batches, such as a DataLoader, or a function that returns them: read
            where ``compensate_images``, ``recalibrate_images`` or the method need them. Of several
            processes each passes its own, and all call ``prune`` at the same epochs.
        loss_fn: ``(model, batch) -> loss``, for the methods that differentiate it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is malformed, a key is unknown, missing or out of range, a layer is
            unknown, or the MAC target is out of reach.

    Attributes:
        channel_pruner: The channels' part; ``reset_optimizer`` is true after a cut.
        slice_pruner: The slices' part.
    """

    def __init__(
        self,
        model: nn.Module,
        config_folder: str | Path,
        forward_fn: Callable[..., Any] | None = None,
        *,
        batches: Batches | None = None,
        loss_fn: Loss | None = None,
    ) -> None:
        if isinstance(model, DistributedDataParallel):
            raise ValueError("pass ddp_model.module: the wrapper is made again after a cut")
        config = PruningConfig.read(config_folder)
        args = config.channel or NO_CHANNELS
        shapes, container = args.input_shapes, args.container
        front = LoopFrontEnd(
            model,
            as_forward(forward_fn, len(shapes), model),
            # Made when needed: the model may have moved to another device.
            functools.partial(example_inputs, shapes, container, model),
            batches,
            loss_fn,
        )
        self._model = model
        self._lines: list[str] = []
        self._listed = self._stepped = False
        # No method of this object: without a cycle its hooks end with its last reference.
        on_cut = functools.partial(_write_back, config)
        self.channel_pruner = ChannelPruner(front, args, on_cut)
        unmasked = functools.partial(_unmasked, model, self.channel_pruner)
        slices = config.slice or NO_SLICES
        self.slice_pruner = SlicePruner(front, slices, unmasked, args.reach_mac_target)
        self._watch = StepWatch(self._after_step)
        self._follow_cut(self.channel_pruner.prune_now(self._lines.append))

    def channel_regularize(self, model: nn.Module, scale: Tensor | float | None = None) -> None:
        """Add the channel penalty to the gradients; after ``loss.backward()``, before the step.

        Once per optimizer step: with gradient accumulation after the last ``backward``. After the
        cut it does nothing.

        Args:
            model: The model.
            scale: Factor on the gradients, where a loss scale is still in them
                (``scaler.get_scale()``); None: 1.

        Raises:
            RuntimeError: the model is said to be cut and is not.

        Warns:
            UserWarning: the file sets no strength.
        """
        self._check(model)
        self.channel_pruner.regularize(scale)
        if not self._stepped:  # an optimizer that is none of torch's: nobody saw its step
            self._hold()
        self._stepped = False

    def slice_regularize(self, model: nn.Module) -> Tensor:
        """Return the slice penalty, a term of the loss: reg times the number of non-zero slices.

        Its gradient is reg s / |s|^2. After ``end_epoch``, or without slice pruning, it is 0.

        Args:
            model: The model.
        """
        self._check(model)
        return self.slice_pruner.regularize()

    def prune(
        self,
        model: nn.Module,
        epoch: int,
        log: Any = None,
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
    ) -> None:
        """Do what is due at an epoch: mask more, or cut; call it at the start of every epoch.

        After a cut ``channel_pruner.reset_optimizer`` is true: make a new optimizer and set it to
        False. Calling it again in the same epoch changes nothing.

        Args:
            model: The model.
            epoch: The epoch, 0-based.
            log: A logger (``log.info(text)``) or a function such as ``print``; None: silent.
            optimizer: Optimizers to carry across the cut: they then train the narrow weights, with
                the statistics of the channels that stay. Without, make new ones: a step of an old
                one is an error.

        Raises:
            RuntimeError: the model is said to be cut and is not; the cut changed its output.
            ValueError: the method needs gradients and there are none.

        Warns:
            UserWarning: the schedule ends with the MAC target unmet; the model that was cut is
                wrapped in DistributedDataParallel.
        """
        self._check(model)
        line = _line_logger(log)
        self._list_once(line)
        optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer or ())
        before = self.channel_pruner.plan
        pruned = self.channel_pruner.prune(epoch, line, optimizers)
        self._follow_cut(pruned)
        if pruned is not None and isinstance(model, DistributedDataParallel):
            warnings.warn(
                "channels were cut: wrap the model in DistributedDataParallel again, the old "
                "wrapper still averages the gradients of the old weights",
                stacklevel=2,
            )
        if self.channel_pruner.plan is not before and not self.channel_pruner.done:
            self.slice_pruner.follow_masks()
        self.slice_pruner.prune(epoch, line)

    def unprune(self, model: nn.Module, names: Iterable[str] | None = None) -> None:
        """Lift channel masks before the cut: rows, norms and their statistics are as they were.

        The groups train freely and are not masked again. Norm statistics may be estimated again
        with ``recalibrate_norms``. Slices are lifted by ``"pruning_mode": "Unprune"``.

        Args:
            model: The model.
            names: Groups (source layers) to free; None: all.

        Raises:
            KeyError: a group has no mask.
        """
        self._check(model)
        self.channel_pruner.unprune(names)
        self.slice_pruner.follow_masks()
        self.slice_pruner.hold()  # restored rows may hold slices that are masked

    def state_dict(self) -> dict[str, Any]:
        """Return masks and progress as plain data, for a checkpoint beside the model's weights."""
        return {
            "channel": self.channel_pruner.state_dict(),
            "slice": self.slice_pruner.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a checkpoint's masks and progress, after the model's weights were loaded.

        Raises:
            RuntimeError: the state is from before the cut, and the file says it was made.
        """
        self.channel_pruner.load_state_dict(state_dict["channel"])
        self.slice_pruner.load_state_dict(state_dict["slice"])
        if not self.channel_pruner.done:
            self.slice_pruner.follow_masks()

    # --- inside -----------------------------------------------------------------------------

    def _check(self, model: nn.Module) -> None:
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        if getattr(inner, "_orig_mod", inner) is not getattr(self._model, "_orig_mod", self._model):
            raise ValueError(
                f"this is not the {type(self._model).__name__} that Pruning was made for: pass the "
                "same object each time, or make a new Pruning for another one"
            )

    def _follow_cut(self, pruned: PrunedChannels | None) -> None:
        if pruned is not None:
            self.slice_pruner.follow_cut(pruned)

    def _after_step(self, optimizer: Optimizer) -> None:
        self._stepped = True
        self.channel_pruner.after_step(optimizer)
        self.slice_pruner.hold()

    def _hold(self) -> None:
        self.channel_pruner.hold()
        self.slice_pruner.hold()

    def _list_once(self, line: Log) -> None:
        if self._listed:
            return
        self._listed = True
        pruner = self.channel_pruner
        if pruner.groups:
            line(group_listing(self._model, pruner.groups, pruner.names))
        for earlier in self._lines:
            line(earlier)


def _unmasked(model: nn.Module, pruner: ChannelPruner) -> dict[str, Tensor]:
    """Return what masked channels leave of each weight."""
    return {} if pruner.done else unmasked_weights(model, pruner.groups, pruner.plan)


def _write_back(config: PruningConfig, log_str: str) -> None:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or torch.distributed.get_rank() == 0:
        config.write_state(log_str)


def _line_logger(log: Any) -> Log:
    if log is None:
        return lambda _: None
    line: Log | None = log if callable(log) else getattr(log, "info", None)
    if line is None:
        raise ValueError(f"log={log!r}: pass a logger with a method info, a function, or None")
    return line
