"""Which slices are zeroed at a pruning ratio, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.functional.slices import (
    as_slices,
    expand_slices,
    slice_norms,
    smallest_slices,
)
from lightning_prune.policies.criteria.non_finite_importance import check_finite
from lightning_prune.policies.layers.slice_layers import SliceLayer, unmasked_filters


@dataclass(frozen=True)
class SliceStep:
    """What one step of the schedule chose.

    Attributes:
        masks: Layer -> bool mask of the weight's shape, True = kept.
        indivisible: Layers left as they were: masked or cut channels left a number of filters
            that the block size does not divide.
    """

    masks: dict[str, Tensor]
    indivisible: tuple[str, ...]


class SliceSelection:
    """Chooses the slices with the smallest norms, floor(ratio S) of the S slices of each layer.

    Channels that are masked do not count among the slices, and the layout is that of the filters
    that are left, so that a later cut of these channels leaves whole slices.

    Args:
        layers: The layers, from ``slice_layers``.
        block_size: A, weights per slice.
        protect_first: Spare the first element of each kernel row (x = 0).
        norm: 1 or 2: by L1 or L2 norm.

    >>> from torch import nn
    >>> from lightning_prune.policies.layers.slice_layers import slice_layers
    >>> net = nn.Conv1d(1, 4, 2)
    >>> _ = net.weight.data.copy_(torch.arange(8.0).view(4, 1, 2))
    >>> selection = SliceSelection(slice_layers(net, None, 2), 2)
    >>> (~selection.select(0.25).masks[""]).nonzero().tolist()
    [[0, 0, 0], [2, 0, 0]]
    """

    def __init__(
        self,
        layers: Mapping[str, SliceLayer],
        block_size: int,
        protect_first: bool = False,
        norm: int = 2,
    ) -> None:
        self.layers = dict(layers)
        self.block_size = block_size
        self.protect_first = protect_first
        self.norm = norm

    @torch.no_grad()
    def select(
        self,
        ratio: float,
        held: Mapping[str, Tensor] | None = None,
        unmasked: Mapping[str, Tensor] | None = None,
    ) -> SliceStep:
        """Return the masks at a pruning ratio.

        Args:
            ratio: Fraction of the slices to zero, in [0, 1].
            held: Masks so far, of the weights' shapes. A slice that they hold goes first; where
                channels were masked since, slices are made of other filters, and what is no longer
                chosen is let go.
            unmasked: What masked channels leave of the weights, from ``unmasked_weights``.

        Raises:
            NonFiniteImportanceError: the norm of a slice is NaN or infinite.
        """
        held, unmasked = held or {}, unmasked or {}
        masks, indivisible = {}, []
        for name, layer in self.layers.items():
            filters = layer.filters(layer.weight)
            before = held.get(name)
            old = torch.ones_like(layer.weight, dtype=torch.bool) if before is None else before
            old = layer.filters(old.to(filters.device))
            rows = unmasked_filters(layer, unmasked)
            every = torch.arange(len(filters), device=filters.device) if rows is None else rows
            if len(every) % self.block_size:
                indivisible.append(name)
                masks[name] = layer.back(old).contiguous().cpu()
                continue
            alive = torch.ones_like(old)
            if name in unmasked:
                alive = layer.filters(unmasked[name].to(filters.device))
            mask = old.clone()
            mask[every] = self._keep(name, filters[every], ratio, old[every], alive[every])
            masks[name] = layer.back(mask).contiguous().cpu()
        return SliceStep(masks, tuple(indivisible))

    def _keep(self, name: str, filters: Tensor, ratio: float, old: Tensor, alive: Tensor) -> Tensor:
        size = self.block_size
        norms = slice_norms(filters, size, self.norm)
        check_finite(norms.flatten(), f"the L{self.norm} norm", name, "slices")
        keep = smallest_slices(
            norms,
            ratio,
            self.protect_first,
            counted=as_slices(alive, size).any(0),
            held=~as_slices(old, size).any(0),
        )
        return torch.where(alive, expand_slices(keep, size), old)

    def zero_fractions(
        self, masks: Mapping[str, Tensor], unmasked: Mapping[str, Tensor] | None = None
    ) -> dict[str, float]:
        """Return the fraction of each layer's weights that is held at zero, in [0, 1].

        Weights of masked channels do not count.
        """
        zero_fractions = {}
        for name in self.layers:
            if name not in masks:
                zero_fractions[name] = 0.0
                continue
            mask = masks[name]
            alive = (unmasked or {}).get(name)
            chosen = ~mask if alive is None else ~mask & alive.to(mask.device)
            number = mask.numel() if alive is None else int(alive.sum())
            zero_fractions[name] = int(chosen.sum()) / max(1, number)
        return zero_fractions
