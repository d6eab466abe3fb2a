"""What the layers give that a cut leaves whole, in samples small enough to keep."""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_prune.graph.layer_kinds import is_producer
from lightning_prune.graph.names import plain_name
from lightning_prune.surgery.compare import largest_difference

_MOST = 4096  # values kept of each output

Samples = list[tuple[str, Tensor]]


class LayerSamples:
    """Samples of the outputs of convolutions and linear layers, in the order of the forward pass.

    A network's own output may hide a fault (boxes after a threshold), and does not say where it
    is: the first layer that gives something else does.

    Args:
        model: The model.
        cut: Names of the layers that the cut changes.
    """

    def __init__(self, model: nn.Module, cut: Collection[str]) -> None:
        producers = {plain_name(n): m for n, m in model.named_modules() if is_producer(m)}
        self._layers = {name: layer for name, layer in producers.items() if name not in cut}
        self._first: Samples | None = None

    @contextmanager
    def recording(self) -> Iterator[Samples]:
        """Record a forward pass; the first one is what later ones are compared with."""
        found: Samples = []

        def hook(name: str) -> Any:
            def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor):
                    flat = output.detach().flatten()
                    found.append((name, flat[:: max(1, len(flat) // _MOST)].clone()))

            return record

        handles = [layer.register_forward_hook(hook(n)) for n, layer in self._layers.items()]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
            if self._first is None:
                self._first = found

    def first_difference(self, again: Samples, tolerance: float) -> tuple[str | None, float]:
        """Return the first layer that gives something else than in the first pass, and how much."""
        before = self._first or []
        for (name, a), (other, b) in zip(before, again, strict=False):
            if name != other or a.shape != b.shape:
                return name, math.inf
            difference = largest_difference([a], [b])
            if not difference <= tolerance:
                return name, difference
        return (None, 0.0) if len(before) == len(again) else (before[-1][0], math.inf)
