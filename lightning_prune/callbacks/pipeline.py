"""The stages of a fit in their order: what they hold together, and the event of the cut."""

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_prune.callbacks._data import example_input
from lightning_prune.callbacks.protocol import (
    ChannelsPrunedListener,
    CutWitness,
    GroupedMasker,
    Masker,
    MaskHolder,
    SliceHolder,
)
from lightning_prune.callbacks.trainer.strategy import (
    check_order,
    refuse_callbacks,
    refuse_strategy,
)
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.removed_rows import removed_positions
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.layers.slice_layers import unmasked_weights
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.surgery.compare import noise_like
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.mask import ChannelMask

_KEY = "_lightning_prune_pipeline"


class Pipeline:
    """The one place where stages of a Trainer learn of one another; one per Trainer.

    Its questions are answered by the callbacks as they are now, whatever their order in the list.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer = trainer
        self._notifying = False
        self._named: list[str] | None = None
        self._traced: tuple[pl.LightningModule, list[Any], ChannelGroups] | None = None

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "Pipeline":
        """Return the pipeline of a Trainer."""
        found: Pipeline = vars(trainer).setdefault(_KEY, cls(trainer))
        return found

    # --- order ------------------------------------------------------------------------------

    def check(self, family: type) -> None:
        """Refuse what no stage works with: strategies, other pruning, an order.

        Args:
            family: The class of the stages that must precede averages.

        Raises:
            ValueError: what is refused, and what to use or to move instead.
        """
        refuse_strategy(self.trainer)
        refuse_callbacks(self.trainer)
        check_order(self.trainer, family)

    def log_reuse(self, names: list[str]) -> None:
        """Log once, for all stages that are used again, that they begin a new run."""
        if self._named is None:
            self._named = names
            what = "what they did in the last one is forgotten"
            rank_zero_info(f"{', '.join(names)}: used again, in a new run; {what}.")

    # --- phase ------------------------------------------------------------------------------

    @property
    def maskers(self) -> list[Masker]:
        """Return the callbacks that hold channels at zero, in their order."""
        return [callback for callback in self._callbacks if isinstance(callback, Masker)]

    @property
    def is_masked(self) -> bool:
        """Return whether any channel is held at zero now."""
        return any(masker.plan for masker in self.maskers)

    @property
    def holds_zeros(self) -> bool:
        """Return whether any channel or slice is held at zero now."""
        holders = (c for c in self._callbacks if isinstance(c, SliceHolder))
        zeroed = any(fraction > 0 for holder in holders for fraction in holder.slice_share.values())
        return zeroed or self.is_masked

    @property
    def is_finished(self) -> bool:
        """Return whether there are maskers, and all of them leave the rest to the cut."""
        found = self.maskers
        return bool(found) and all(masker.finished for masker in found)

    @property
    def is_cut(self) -> bool:
        """Return whether channels were cut in this run, before a resume perhaps."""
        return any(isinstance(c, CutWitness) and c.is_cut for c in self._callbacks)

    @property
    def plan(self) -> PruningPlan:
        """What all maskers hold at zero together."""
        plan = PruningPlan()
        for masker in self.maskers:
            plan = plan.merge(masker.plan)
        return plan

    # --- what is held -----------------------------------------------------------------------

    def groups(self) -> ChannelGroups:
        """Return the channel groups: those that a masker knows, as they were tried, else traced."""
        for masker in self.maskers:
            if isinstance(masker, GroupedMasker) and masker.groups is not None:
                return masker.groups
        module, known = self._module, self._traced
        shapes = [(name, p.shape) for name, p in module.named_parameters()]
        if known is None or known[0] is not module or known[1] != shapes:
            example = noise_like(example_input(self.trainer, module))
            known = self._traced = module, shapes, trace_groups(module, example)
        return known[2]

    def groups_of(self, masker: Masker) -> ChannelGroups:
        """Return the channel groups that a masker's plan names."""
        own = masker.groups if isinstance(masker, GroupedMasker) else None
        return self.groups() if own is None else own

    def masked_channels(self) -> dict[str, set[int]]:
        """Return the output channels of each layer that maskers hold at zero."""
        found: dict[str, set[int]] = {}
        for groups, plan in self._held_by(self.maskers):
            for name in plan.keep:
                mask = plan.mask(name)
                for member in groups[name].members:
                    if member.role != "consumer":
                        gone = removed_positions(member, mask).tolist()
                        found.setdefault(member.layer, set()).update(gone)
        return found

    def unmasked_weights(self) -> dict[str, Tensor]:
        """Mark what the channels that maskers hold at zero leave of each weight."""
        left: dict[str, Tensor] = {}
        for groups, plan in self._held_by(self.maskers):
            for name, mask in unmasked_weights(self._module, groups, plan).items():
                left[name] = left[name] & mask if name in left else mask
        return left

    def apply_masks(self) -> None:
        """Zero again what the stages hold at zero: it may have been given something."""
        for callback in self._callbacks:
            if isinstance(callback, MaskHolder):
                callback.apply_mask()
        others = [masker for masker in self.maskers if not isinstance(masker, MaskHolder)]
        for groups, plan in self._held_by(others):
            ChannelMask(self._module, groups, plan).apply()

    def _held_by(self, maskers: list[Masker]) -> Iterator[tuple[ChannelGroups, PruningPlan]]:
        # Maskers drop their plans in the order of the list: none of them fits the cut model.
        for masker in () if self._notifying else maskers:
            plan = masker.plan
            if plan:
                yield self.groups_of(masker), plan

    # --- the event --------------------------------------------------------------------------

    def notify(self, pl_module: pl.LightningModule, pruned: PrunedChannels) -> None:
        """Call ``on_channels_pruned`` on every callback, then on the module, where defined."""
        self._notifying = True
        try:
            for listener in [*self._callbacks, pl_module]:
                if isinstance(listener, ChannelsPrunedListener):
                    listener.on_channels_pruned(self.trainer, pl_module, pruned)
        finally:
            self._notifying = False

    @property
    def _module(self) -> pl.LightningModule:
        return self.trainer.lightning_module

    @property
    def _callbacks(self) -> list[Any]:
        return callbacks_of(self.trainer)
