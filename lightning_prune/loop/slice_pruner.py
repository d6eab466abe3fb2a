"""Slice pruning of a plain loop: a configuration file drives the engine."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.slice_masking import SliceMasking
from lightning_prune.engine.steps import RatioSteps
from lightning_prune.loop.front_end import LoopFrontEnd
from lightning_prune.loop.slice_sparsity_args import SliceSparsityArgs
from lightning_prune.policies.layers.slice_layers import slice_layers
from lightning_prune.policies.penalties.slice_regularization import SliceRegularization
from lightning_prune.policies.selection.slice_selection import SliceSelection
from lightning_prune.surgery.cut import PrunedChannels

Log = Callable[[str], None]


class SlicePruner:
    """Penalizes and masks slices as a configuration says.

    Args:
        front: The model.
        args: Section of the configuration.
        unmasked: Returns what masked channels leave of each weight.
        cut: Whether channels of the model were cut: widths may not be what ``block_size`` divides.
    """

    def __init__(
        self,
        front: LoopFrontEnd,
        args: SliceSparsityArgs,
        unmasked: Callable[[], Mapping[str, Tensor]],
        cut: bool,
    ) -> None:
        self._front, self._args, self._unmasked = front, args, unmasked
        size = 1 if cut else args.block_size
        layers = slice_layers(front.model, args.layers or None, size) if args.is_prune else {}
        first, gradually = args.disable_first_index, args.pruning_gradually
        self._selection = SliceSelection(layers, args.block_size, first, args.norm)
        self._steps = RatioSteps(
            args.schedule, tuple(layers), catch_up=True, gradually=gradually, closing=True
        )
        self._regularization: SliceRegularization | None = None
        if layers and args.reg:
            self._regularization = SliceRegularization(layers, args.block_size, args.reg, first)
        self._epoch = -1
        self._lifted = False
        self._passed_over: set[str] = set()
        self._restore(MaskState())

    def _restore(self, state: MaskState) -> None:
        self._state = state
        self._run = SliceMasking(
            self._front, self._selection, self._steps, state, self._unmasked, self._pass_over
        )

    def regularize(self) -> Tensor:
        """Return the loss term: zero once the schedule is over."""
        if self._regularization is None or self._epoch > self._args.end_epoch:
            place = next((p.device for p in self._front.model.parameters()), None)
            return torch.zeros((), device=place)
        return self._regularization.penalty().value

    def prune(self, epoch: int, log: Log) -> None:
        """Mask or lift what is due at an epoch."""
        self._epoch = epoch
        self.hold()
        if self._args.is_prune and self._args.pruning_mode == "Unprune":
            if epoch >= self._args.start_epoch and not self._lifted:
                self._lifted = True
                self._lift(epoch, log)
            return
        before, self._state = self._state, self._run.advance(self._state, epoch)
        if self._state.step_epoch == before.step_epoch:
            return
        fractions, _ = self._run.zero_fractions()
        mean = sum(fractions.values()) / max(1, len(fractions))
        log(
            f"epoch {epoch}: {self._state.ratio:.1%} of the slices of each layer are to be zero, "
            f"{mean:.1%} are"
        )

    def follow_masks(self) -> None:
        """Leave masked channels out of the penalty."""
        if self._regularization is not None:
            self._regularization.set_unmasked(self._unmasked())
            self._pass_over(self._regularization.indivisible)

    def _lift(self, epoch: int, log: Log) -> None:
        if self._state.originals is None:
            warnings.warn(
                "pruning_mode Unprune has no effect: no slice is masked; load the state of a run "
                "that masked slices (load_state_dict)",
                stacklevel=4,
            )
            return
        self._state = self._run.free(self._state, None)
        log(f"epoch {epoch}: the masks of all slices are lifted")

    def follow_cut(self, pruned: PrunedChannels) -> None:
        """Hold what is held of the weights that are left."""
        self._state = self._run.follow_cut(self._state, pruned)
        self.follow_masks()

    def hold(self) -> None:
        """Zero what is masked."""
        self._run.live.apply()

    def state_dict(self) -> dict[str, Any]:
        """Return masks and progress as plain data."""
        return self._state.state_dict() | {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore masks and progress; the weights they are for are loaded first."""
        if "version" not in state:
            state = {**state, "cut": False, "originals": state["mask"]}
        self._epoch, self._lifted = state["epoch"], False
        self._restore(MaskState.from_state_dict(state) if self._args.is_prune else MaskState())

    def _pass_over(self, names: tuple[str, ...]) -> None:
        new = [name for name in names if name not in self._passed_over]
        self._passed_over.update(new)
        if new:
            warnings.warn(
                f"slices of {', '.join(new)} are passed over: channel pruning left a number of "
                f"filters that block_size={self._args.block_size} does not divide; set "
                "channel_sparsity_args.block_size to a multiple of it",
                stacklevel=4,
            )
