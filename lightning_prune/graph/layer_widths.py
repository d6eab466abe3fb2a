"""Widths of all layers as a function of the widths of some groups."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from lightning_prune.graph.kept_fraction import KeptFraction
from lightning_prune.graph.macs import MacModel, Values

End = Literal["out", "in"]


class LayerWidths:
    """How wide the outputs and inputs of layers are, for many choices of widths at once.

    Args:
        macs: The network.
        names: The G groups whose widths vary, in this order; others keep all channels.

    Attributes:
        layers: L names, the columns of what ``of`` returns.
        dense: End -> (L,) dense widths; 1 where no group stands at that end.

    >>> import torch
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 24), torch.nn.Linear(24, 10))
    >>> macs = MacModel.of(net, trace_groups(net, torch.zeros(1, 2)), torch.zeros(1, 2))
    >>> LayerWidths(macs, ["0"]).of(np.array([[17.0]]), "out").tolist()
    [[17.0, 1.0]]
    """

    def __init__(self, macs: MacModel, names: Sequence[str]) -> None:
        place = {name: i for i, name in enumerate(names)}
        self.layers = list(macs.layers)
        ends: dict[End, Mapping[str, KeptFraction]] = {"out": macs.outputs, "in": macs.inputs}
        self.dense = {end: np.ones(len(self.layers)) for end in ends}
        # Widths are fixed + w @ varying, and products of widths where groups are factors.
        self._varying = {end: np.zeros((len(place), len(self.layers))) for end in ends}
        self._fixed = {end: np.ones(len(self.layers)) for end in ends}
        self._higher: dict[End, list[tuple[int, tuple[int, ...], float]]]
        self._higher = {end: [] for end in ends}
        for number, layer in enumerate(self.layers):
            for end, fractions in ends.items():
                if layer not in fractions:
                    continue
                size = self.dense[end][number] = fractions[layer].size
                self._fixed[end][number] = 0.0
                for key, part in fractions[layer].monomials(place, macs.channels):
                    if not key:
                        self._fixed[end][number] += part * size
                    elif len(key) == 1:
                        self._varying[end][key[0], number] += part * size
                    else:
                        self._higher[end].append((number, key, part * size))

    def of(self, widths: Values, end: End) -> Values:
        """Return the widths of all layers at one end, (N, G) -> (N, L)."""
        left: Values = self._fixed[end] + widths @ self._varying[end]
        for number, key, part in self._higher[end]:
            left[:, number] += part * widths[:, key].prod(1)
        return left
