"""Holds single weights of a live model, such as those of slices, at zero while it trains."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.names import modules_by_name
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.held_mask import HeldMask


class SliceMask(HeldMask):
    """Zeroes weights by element masks, and keeps the values they had.

    Args:
        model: The live model, or an averaged copy of it.
        masks: Name of a layer -> bool mask of its weight's shape, True = kept.

    Raises:
        KeyError: the model has no such layer.
        ValueError: a mask has another shape than the weight.

    >>> net = nn.Linear(2, 1)
    >>> _ = nn.init.ones_(net.weight)
    >>> mask = SliceMask(net, {"": torch.tensor([[True, False]])})
    >>> mask.remember()
    >>> mask.apply()
    >>> net.weight.tolist()
    [[1.0, 0.0]]
    >>> mask.restore()
    >>> net.weight.tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        modules = modules_by_name(model)
        for name, mask in masks.items():
            if name not in modules:
                raise KeyError(f"no layer {name!r} in the model that the slice masks are for")
            weight = modules[name].weight
            assert isinstance(weight, Tensor)
            if weight.shape != mask.shape:
                raise ValueError(
                    f"the slice mask of {name!r} is of shape {tuple(mask.shape)}, its weight of "
                    f"shape {tuple(weight.shape)}: masks follow a cut by `after_cut`"
                )
        self.masks = {name: mask.cpu() for name, mask in masks.items()}
        # Layers of which nothing is masked cost no time.
        self._owners = {n: modules[n] for n, mask in self.masks.items() if not bool(mask.all())}
        self._factors: list[Tensor] = []
        self._originals: dict[str, Tensor] = {}

    def _weights(self) -> list[Tensor]:
        # Looked up each time: a cut or a move to another device replaces them.
        return [owner.weight.detach() for owner in self._owners.values()]  # type: ignore[operator]

    @torch.no_grad()
    def apply(self) -> None:
        """Zero the masked weights now: one fused product over all layers."""
        weights = self._weights()
        if not weights:
            return
        stale = len(self._factors) != len(weights) or any(
            factor.device != weight.device or factor.dtype != weight.dtype
            for factor, weight in zip(self._factors, weights, strict=True)
        )
        if stale:
            masks = [self.masks[name] for name in self._owners]
            self._factors = [
                # The same memory order as the weight's, or the product is not one pass.
                torch.empty_like(weight).copy_(mask)
                for mask, weight in zip(masks, weights, strict=True)
            ]
        torch._foreach_mul_(weights, self._factors)

    # --- the way back -----------------------------------------------------------------------

    @torch.no_grad()
    def remember(self, earlier: "SliceMask | None" = None) -> None:
        """Keep the values of the masked weights; before ``apply``.

        Args:
            earlier: The mask so far: what it had masked already is taken from it, not from the
                zeros in the model.
        """
        for name, owner in self._owners.items():
            full = owner.weight.detach().to("cpu", copy=True)  # type: ignore[operator]
            if earlier is not None and name in earlier._originals:
                full[~earlier.masks[name]] = earlier._originals[name].to(full.dtype)
            self._originals[name] = full[~self.masks[name]]

    @torch.no_grad()
    def restore(self, kept: Mapping[str, Tensor] | None = None) -> None:
        """Restore the masked weights as they were, and stop holding.

        Args:
            kept: Masks of weights that stay as they are where they are False, such as those of
                the mask that follows; None: everything comes back.
        """
        self.release()
        for name, owner in self._owners.items():
            lifted = ~self.masks[name]
            if name not in self._originals:
                raise RuntimeError("nothing to restore: call remember() before the mask is applied")
            full = torch.zeros(lifted.shape, dtype=self._originals[name].dtype)
            full[lifted] = self._originals[name]
            if kept is not None and name in kept:
                lifted = lifted & kept[name].cpu()
            weight = owner.weight.detach()  # type: ignore[operator]
            back = full.to(weight)
            weight.copy_(torch.where(lifted.to(weight.device), back, weight))

    def after_cut(self, model: nn.Module, pruned: PrunedChannels) -> "SliceMask":
        """Return the mask of the model after a cut of channels: of what is left, exactly the same.

        Slices need not be whole any more where filters of a block have gone.
        """
        self.release()
        masks, values = dict(self.masks), {}
        for name, mask in self.masks.items():
            full = torch.zeros(mask.shape, dtype=torch.float32)
            if name in self._originals:
                full = full.to(self._originals[name].dtype)
                full[~mask] = self._originals[name]
            cut = pruned.parameters.get(f"{name}.weight" if name else "weight")
            if cut is not None:
                mask, full = cut.select(mask), cut.select(full)
            masks[name] = mask
            if name in self._originals:
                values[name] = full[~mask]
        after = SliceMask(model, masks)
        after._originals = {name: values[name] for name in after._owners if name in values}
        return after

    def state_dict(self) -> dict[str, Any]:
        """Return masks and original values as plain data."""
        return {"masks": dict(self.masks), "originals": dict(self._originals)}

    @classmethod
    def from_state_dict(cls, model: nn.Module, state: Mapping[str, Any]) -> "SliceMask":
        """Build the mask that ``state_dict`` described."""
        mask = cls(model, state["masks"])
        mask._originals = dict(state["originals"])
        return mask
