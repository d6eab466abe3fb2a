"""The slice penalty at work on a live model; for Lightning and plain loops alike."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from lightning_prune.arguments import Count, Strength
from lightning_prune.functional.slice_penalty import (
    SlicePenalty,
    slice_penalty,
    slice_penalty_factors,
)
from lightning_prune.functional.slices import as_slices
from lightning_prune.policies.layers.slice_layers import SliceLayer, unmasked_filters
from lightning_prune.validation import validated


class SliceRegularization:
    r"""Draws the slices of some layers to zero.

    .. math:: g \mathrel{+}= \text{reg} \frac{s}{\|s\|^2}

    for every slice s that is not zero: the gradient of :math:`\text{reg} \sum_s \log \|s\|`.

    Args:
        layers: The layers, from ``slice_layers``.
        block_size: A, weights per slice.
        reg: Strength, at least 0.
        protect_first: Leave out the first element of each kernel row (x = 0).

    Raises:
        ValueError: the strength is negative.

    Attributes:
        indivisible: Layers without a penalty: masked or cut channels left a number of filters that
            the block size does not divide.

    >>> from torch import nn
    >>> from lightning_prune.policies.layers.slice_layers import slice_layers
    >>> net = nn.Linear(1, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0], [4.0]]))
    >>> regularization = SliceRegularization(slice_layers(net, ["*"], 2), 2, reg=0.5)
    >>> regularization.penalty().value.backward()
    >>> [round(g, 2) for g in net.weight.grad.flatten().tolist()]
    [0.06, 0.08]
    """

    @validated
    def __init__(
        self,
        layers: Mapping[str, SliceLayer],
        block_size: Count,
        reg: Strength = 1e-5,
        protect_first: bool = False,
    ) -> None:
        self.layers = dict(layers)
        self.block_size = block_size
        self.reg = reg
        self.protect_first = protect_first
        self._rows: dict[str, Tensor] = {}
        self.indivisible: tuple[str, ...] = ()
        self.set_unmasked({})

    def set_unmasked(self, unmasked: Mapping[str, Tensor]) -> None:
        """Leave out masked channels: ``unmasked`` says what they leave (``unmasked_weights``)."""
        self._rows, odd = {}, []
        for name, layer in self.layers.items():
            rows = unmasked_filters(layer, unmasked)
            number = len(layer.filters(layer.weight)) if rows is None else len(rows)
            if number % self.block_size:
                odd.append(name)
            elif rows is not None:
                self._rows[name] = rows
        self.indivisible = tuple(odd)

    def penalty(self) -> SlicePenalty:
        """Return the penalty of all layers: ``value`` is a loss term, on the weights' device."""
        values, logs, numbers, slices = [], [], [], 0
        for name, layer in self._active():
            filters = layer.filters(layer.weight)
            rows = self._rows.get(name)
            part = slice_penalty(
                filters if rows is None else filters[rows],
                self.block_size,
                self.reg,
                self.protect_first,
            )
            values.append(part.value)
            logs.append(part.log_sum)
            numbers.append(part.nonzero)
            slices += part.slices
        if not values:
            return SlicePenalty(torch.zeros(()), torch.zeros(()), torch.zeros(()), 0)
        return SlicePenalty(_sum(values), _sum(logs), _sum(numbers), slices)

    @torch.no_grad()
    def apply(self, own: Collection[int] | None = None, scale: Tensor | None = None) -> None:
        """Add the penalty's gradient to the gradients that are there.

        Args:
            own: ``id`` of the parameters to act on; None: all.
            scale: Factor that the gradients still carry; None: 1.
        """
        for name, layer in self._active():
            weight = layer.weight
            if weight.grad is None or (own is not None and id(weight) not in own):
                continue
            rows = self._rows.get(name)
            filters = layer.filters(weight)
            chosen = filters if rows is None else filters[rows]
            pull = slice_penalty_factors(chosen, self.block_size, self.reg, self.protect_first)
            pull = pull if scale is None else pull * scale
            slices = as_slices(chosen, self.block_size)
            # In half precision the pull on a zero slice may be infinite: the product is wide then.
            if rows is None and layer.in_place and pull.dtype == weight.grad.dtype:
                as_slices(layer.filters(weight.grad), self.block_size).addcmul_(slices, pull)
                continue
            added = (slices * pull).flatten(0, 1).to(filters.dtype)
            if rows is not None:
                added = torch.zeros_like(filters).index_copy_(0, rows, added)
            weight.grad.add_(layer.back(added))

    def _active(self) -> list[tuple[str, SliceLayer]]:
        return [(n, v) for n, v in self.layers.items() if n not in self.indivisible]


def _sum(values: list[Tensor]) -> Tensor:
    # Parts of a model may lie on different devices.
    return torch.stack([value.to(values[0].device) for value in values]).sum()
