"""Masks the slices of layers step by step; nothing is ever cut."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from lightning_prune.engine.agreement import agree
from lightning_prune.engine.front_end import FrontEnd
from lightning_prune.engine.live_mask import LiveSlices
from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.next_action import Mask, next_action
from lightning_prune.engine.phase import Phase
from lightning_prune.engine.steps import RatioSteps
from lightning_prune.policies.selection.slice_selection import SliceSelection
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.slice_mask import SliceMask


class SliceMasking:
    """Masks slices; ``originals`` of its states are the masks with the values under them.

    Args:
        front: Who trains the model.
        selection: Which slices are masked at a ratio.
        steps: When.
        state: How far masks have come; what it holds is masked now.
        unmasked: Returns what masked channels leave of each weight.
        pass_over: Called with the layers that a step leaves as they were: masked or cut channels
            left them a number of filters that the block size does not divide.

    Attributes:
        live: What is masked now.
    """

    def __init__(
        self,
        front: FrontEnd,
        selection: SliceSelection,
        steps: RatioSteps,
        state: MaskState,
        unmasked: Callable[[], Mapping[str, Tensor]],
        pass_over: Callable[[tuple[str, ...]], None],
    ) -> None:
        self.front, self.selection, self.steps = front, selection, steps
        self._unmasked, self._pass_over = unmasked, pass_over
        held = {"masks": {}, "originals": {}} if state.originals is None else state.originals
        self.live = LiveSlices(front, SliceMask.from_state_dict(front.model, held))

    def advance(self, state: MaskState, epoch: int) -> MaskState:
        """Do what is due at the start of an epoch; again at the same epoch, it changes nothing."""
        action = next_action(state, self.steps, epoch)
        if not isinstance(action, Mask):
            return state
        select = partial(self.selection.select, action.ratio, self.live.masks, self._unmasked())
        chosen, failure = agree(self.front, select)
        if chosen is None:
            self.front.report_failure(failure)
            return replace(state, failed_epoch=epoch)
        self._pass_over(chosen.indivisible)
        self.live.replace({**self.live.masks, **chosen.masks})
        after = replace(state, step_epoch=epoch, ratio=action.ratio, originals=self.live.originals)
        complete = self.steps.complete(after)
        return replace(after, phase=Phase.HOLDING if complete else Phase.MASKING)

    def free(self, state: MaskState, names: Iterable[str] | None) -> MaskState:
        """Lift masks for good: weights, in averages too, are what they were.

        Args:
            state: How far masks have come.
            names: Layers; None: all.

        Raises:
            KeyError: a layer has no mask.
        """
        masks = self.live.masks
        lifted = set(masks if names is None else names)
        if lifted - masks.keys():
            raise KeyError(f"no slice mask on {sorted(lifted - masks.keys())}")
        whole = {name: masks[name].new_ones(masks[name].shape) for name in masks if name in lifted}
        self.live.replace({**masks, **whole})
        for name in lifted:
            self.selection.layers.pop(name, None)
        freed = (*state.freed, *sorted(lifted))
        if names is not None:
            return replace(state, freed=freed, originals=self.live.originals)
        self.live.replace({})
        return replace(state, freed=freed, originals=None, ratio=0.0)

    def follow_cut(self, state: MaskState, pruned: PrunedChannels) -> MaskState:
        """Hold what is held of the weights that a cut of channels left."""
        if state.originals is None:
            return state
        self.live.follow_cut(pruned)
        return replace(state, originals=self.live.originals)

    def zero_fractions(self) -> tuple[dict[str, float], float]:
        """Return which fraction of the unmasked channels' weights slices hold: by layer, in all."""
        left = self._unmasked()
        layers = self.selection.zero_fractions(self.live.masks, left)
        sizes = {
            name: int(left[name].sum()) if name in left else layer.weight.numel()
            for name, layer in self.selection.layers.items()
        }
        zeros = sum(fraction * sizes[name] for name, fraction in layers.items())
        return layers, zeros / max(1, sum(sizes.values()))
