"""Slice pruning of a plain loop: what is due at an epoch, and the state that it needs."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.loop.slice_sparsity_args import SliceSparsityArgs
from lightning_prune.policies.layers.slice_layers import slice_layers
from lightning_prune.policies.penalties.slice_regularization import SliceRegularization
from lightning_prune.policies.selection.slice_selection import SliceSelection
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.slice_mask import SliceMask

Tell = Callable[[str], None]


class SlicePruner:
    """Penalises and masks slices as a configuration says.

    Args:
        model: The model.
        args: Section of the configuration; None: slices are left alone.
        cut: Whether channels of the model were cut: widths may not be what ``block_size`` divides.
    """

    def __init__(self, model: nn.Module, args: SliceSparsityArgs | None, cut: bool = False) -> None:
        self._model, self._args = model, args
        self._epoch = -1
        self._step_epoch: int | None = None
        self._mask: SliceMask | None = None
        self._lifted = False
        self._told: set[str] = set()
        self._selection: SliceSelection | None = None
        self._regularization: SliceRegularization | None = None
        if args is None:
            return
        layers = slice_layers(model, args.layers or None, 1 if cut else args.block_size)
        first = args.disable_first_index
        self._selection = SliceSelection(layers, args.block_size, first, args.norm)
        if args.reg:
            self._regularization = SliceRegularization(layers, args.block_size, args.reg, first)

    def regularize(self) -> Tensor:
        """Return the loss term: zero once the schedule is over."""
        over = self._args is not None and self._epoch > self._args.end_epoch
        if self._regularization is None or over:
            place = next((p.device for p in self._model.parameters()), None)
            return torch.zeros((), device=place)
        return self._regularization.penalty().value

    def prune(self, epoch: int, tell: Tell, living: Callable[[], Mapping[str, Tensor]]) -> None:
        """Mask or lift what is due at an epoch.

        Args:
            epoch: The epoch, 0-based.
            tell: Takes a line for the log.
            living: What masked channels leave of the weights.
        """
        self._epoch = epoch
        if self._args is None or self._selection is None:
            return
        if self._mask is not None:
            self._mask.apply()
        if self._args.pruning_mode == "Unprune":
            if epoch >= self._args.start_epoch and not self._lifted:
                self._lifted = True
                self._lift(epoch, tell)
            return
        schedule = self._args.schedule
        due = [step for step in (*schedule.epochs, schedule.end_epoch) if step <= epoch]
        if not due or due[-1] == self._step_epoch:
            return
        self._step_epoch = due[-1]
        rate = schedule.ratio(epoch) if self._args.pruning_gradually else schedule.final_ratio
        left = living()
        held = {} if self._mask is None else self._mask.masks
        chosen = self._selection.select(rate, held, left)
        self._warn_of(chosen.indivisible)
        self._hold({**held, **chosen.masks})
        shares = self._selection.shares(chosen.masks, left)
        mean = sum(shares.values()) / max(1, len(shares))
        tell(
            f"epoch {epoch}: {rate:.1%} of the slices of each layer are to be zero, {mean:.1%} are"
        )

    def set_living(self, living: Mapping[str, Tensor]) -> None:
        """Leave masked channels out of the penalty."""
        if self._regularization is not None:
            self._regularization.set_living(living)
            self._warn_of(self._regularization.indivisible)

    def _lift(self, epoch: int, tell: Tell) -> None:
        if self._mask is None:
            warnings.warn(
                "pruning_mode Unprune has no effect: no slice is masked; load the state of a run "
                "that masked slices (load_state_dict)",
                stacklevel=4,
            )
            return
        self._mask.restore()
        self._mask = None
        tell(f"epoch {epoch}: the masks of all slices are lifted")

    def after_cut(self, pruned: PrunedChannels) -> None:
        """Hold what is held of the weights that are left."""
        if self._mask is not None:
            self._mask = self._mask.after_cut(self._model, pruned)
            self._mask.apply()
        self.set_living({})

    def after_step(self) -> None:
        """Hold the masks."""
        if self._mask is not None:
            self._mask.apply()

    def state_dict(self) -> dict[str, Any]:
        """Return masks and progress as plain data."""
        mask = None if self._mask is None else self._mask.state_dict()
        return {"mask": mask, "step_epoch": self._step_epoch, "epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up masks and progress; the weights they are for are loaded first."""
        self._step_epoch, self._epoch = state["step_epoch"], state["epoch"]
        self._lifted = False
        if state["mask"] is not None and self._args is not None:
            self._mask = SliceMask.from_state_dict(self._model, state["mask"])
            self._mask.apply()

    def _hold(self, masks: Mapping[str, Tensor]) -> None:
        after = SliceMask(self._model, masks)
        after.remember(self._mask)
        if self._mask is not None:
            self._mask.restore(after.masks)
        self._mask = after
        after.apply()

    def _warn_of(self, names: tuple[str, ...]) -> None:
        new = [name for name in names if name not in self._told]
        self._told.update(new)
        if new and self._args is not None:
            warnings.warn(
                f"slices of {', '.join(new)} are passed over: channel pruning left a number of "
                f"filters that block_size={self._args.block_size} does not divide; set "
                "channel_sparsity_args.block_size to a multiple of it",
                stacklevel=4,
            )
