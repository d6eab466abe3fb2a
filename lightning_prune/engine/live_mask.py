"""What exists only while something is masked in a model that trains."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_prune.engine.front_end import FrontEnd
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.held_mask import HeldMask
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.slice_mask import SliceMask


class LiveMask(ABC):
    """A mask on a model, its averages and its optimizers.

    Args:
        front: Whose model it is.
    """

    mask: HeldMask

    def __init__(self, front: FrontEnd) -> None:
        self._front = front

    @property
    @abstractmethod
    def originals(self) -> dict[str, Any]:
        """What is masked as it was before, as plain data."""

    @abstractmethod
    def mask_averages(self) -> None:
        """Zero it in averages: later averages of zeros stay zero."""

    def hold(self) -> None:
        """Zero it now and after every step of the optimizers there are."""
        self.mask.hold(self._front.optimizers)

    def follow(self) -> None:
        """Hold it with optimizers that were rebuilt: a new one knows nothing of the mask."""
        if not self.mask.holds(self._front.optimizers):
            self.hold()

    def apply(self) -> None:
        """Zero it now."""
        self.mask.apply()

    def clear_gradients(self) -> None:
        """Zero the gradients of what is masked."""
        self.mask.clear_gradients()

    def release(self) -> None:
        """Stop holding it."""
        self.mask.release()


class LiveChannels(LiveMask):
    """Masked channels.

    Args:
        front: Whose model it is.
        groups: Its channel groups.
        plan: What is masked.
        earlier: ``originals`` of the mask that this one follows; None: there is none.
    """

    def __init__(
        self,
        front: FrontEnd,
        groups: ChannelGroups,
        plan: PruningPlan,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(front)
        self._groups = groups
        self.mask: ChannelMask = ChannelMask(front.model, groups, plan)
        self.mask.remember(earlier)
        self.hold()
        self.mask_averages()

    @property
    def plan(self) -> PruningPlan:
        """What is masked."""
        return self.mask.plan

    @property
    def originals(self) -> dict[str, Any]:
        """What is masked as it was before, as plain data."""
        return self.mask.originals()

    def mask_averages(self) -> None:
        """Zero it in averages."""
        for copy in self._front.averaged_copies:
            ChannelMask(copy, self._groups, self.plan).apply()

    def restore(self, names: Sequence[str]) -> None:
        """Restore the channels of some groups, in averages too, and hold the others.

        Raises:
            KeyError: a group has no mask.
        """
        plan, originals = self.plan, self.originals
        self.mask = self.mask.restore(names)
        for copy in self._front.averaged_copies:
            twin = ChannelMask(copy, self._groups, plan)
            twin.remember(originals)
            twin.restore(names)
        self.hold()


class LiveSlices(LiveMask):
    """Masked slices.

    Args:
        front: Whose model it is.
        mask: The mask, with the values that it had masked.
    """

    def __init__(self, front: FrontEnd, mask: SliceMask) -> None:
        super().__init__(front)
        self.mask: SliceMask = mask
        self._hold_all()

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Layer -> mask of its weight, True = kept."""
        return self.mask.masks

    @property
    def originals(self) -> dict[str, Any]:
        """Masks and the values under them, as plain data."""
        return self.mask.state_dict()

    def replace(self, masks: Mapping[str, Tensor]) -> None:
        """Hold other masks: what they do not hold comes back as it was."""
        after, state = SliceMask(self._front.model, masks), self.originals
        after.remember(self.mask)
        for copy in self._front.averaged_copies:
            SliceMask.from_state_dict(copy, state).restore(after.masks)
        self.mask.restore(after.masks)
        self.mask = after
        self._hold_all()

    def follow_cut(self, pruned: PrunedChannels) -> None:
        """Hold what is held of the weights that a cut left."""
        self.mask = self.mask.after_cut(self._front.model, pruned)
        self._hold_all()

    def mask_averages(self) -> None:
        """Zero it in averages."""
        for copy in self._front.averaged_copies:
            SliceMask(copy, self.masks).apply()

    def _hold_all(self) -> None:
        self.hold()
        self.mask_averages()
