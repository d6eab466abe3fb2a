"""Follows NaN from a channel's weights to the next sums over channels, and stops it there."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.functional.named_tensors import named_tensors
from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.names import plain_name
from lightning_prune.graph.plain_kernels import plain_kernels
from lightning_prune.surgery.nan_mode import NanMode, Product
from lightning_prune.surgery.nan_products import ContractionFinder
from lightning_prune.surgery.nan_seen import Seen


class NanSpread:
    """A network whose channels can be filled with NaN, and the columns of weights that meet it.

    A first pass with whole weights finds of which tensors the operands of contractions are parts.
    In later passes NaN runs through everything that works on channels one by one, and is noted and
    set to zero where a contraction, or a statistic, would spread it over all.

    Args:
        net: A copy of a model in eval mode; its weights are changed and restored.
        run: Calls it.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> spread = NanSpread(net, lambda m: m(torch.ones(1, 2)))
    >>> with spread.poisoned({"0.bias": torch.tensor([False, True, False])}) as seen:
    ...     pass
    >>> {name: places.view(2, 3).any(0).tolist() for name, places in seen.places.items()}
    {'2.weight': [False, True, False]}
    """

    def __init__(self, net: nn.Module, run: Callable[[nn.Module], Any]) -> None:
        self.net, self._run = net, run
        self.tensors = {
            plain_name(name): tensor
            for name, tensor in [*net.named_parameters(), *net.named_buffers()]
            if tensor.is_floating_point()
        }
        self.products: list[Product] = []
        first = ContractionFinder(self.tensors)
        self._pass(first)
        self.products = first.products

    @property
    def read(self) -> set[str]:
        """Return the names of the tensors that contractions take."""
        return {one[0] for product in self.products for one in product.sources if one is not None}

    @contextmanager
    def poisoned(self, places: dict[str, Tensor]) -> Iterator[Seen]:
        """Run with NaN at places (masks of tensors' shapes); give what was seen.

        Raises:
            OtherPathError: the network computes something else then.
        """
        kept = {name: self.tensors[name].detach().clone() for name in places}
        seen = Seen(self.tensors, self.products)
        try:
            with torch.no_grad():
                for name, mask in places.items():
                    self.tensors[name].masked_fill_(mask, torch.nan)
            output = self._pass(seen)
            seen.reaches_output = any(
                bool(t.isnan().any())
                for t in named_tensors(output).values()
                if t.is_floating_point()
            )
            yield seen
        finally:
            with torch.no_grad():
                for name, values in kept.items():
                    self.tensors[name].copy_(values)

    def _pass(self, mode: NanMode) -> Any:
        with ExitStack() as stack:
            stack.enter_context(untouched(self.net))
            stack.enter_context(torch.no_grad())
            stack.enter_context(plain_kernels(self.net))
            self.net.eval()
            for name, module in self.net.named_modules():
                for handle in mode.hooks(plain_name(name), module):
                    stack.callback(handle.remove)
            stack.enter_context(mode)
            return self._run(self.net)
