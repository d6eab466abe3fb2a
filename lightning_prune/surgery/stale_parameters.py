"""Finds optimizers that were forgotten at a cut."""

import weakref
from collections.abc import Mapping

from torch import nn
from torch.optim import Optimizer

from lightning_prune.surgery.cut import Replacement


class StaleParameters:
    """The parameters that a cut replaced, as long as anybody holds them.

    Args:
        replaced: Name of each parameter -> its replacement.
    """

    def __init__(self, replaced: Mapping[str, Replacement] | None = None) -> None:
        self._old: dict[str, weakref.ref[nn.Parameter]] = {
            name: weakref.ref(replacement.old) for name, replacement in (replaced or {}).items()
        }

    def check(self, optimizer: Optimizer) -> None:
        """Check an optimizer that has just made a step.

        Raises:
            RuntimeError: it trains weights that the model no longer has.
        """
        if not self._old:
            return
        alive = {id(old): name for name, ref in self._old.items() if (old := ref()) is not None}
        self._old = {name: self._old[name] for name in alive.values()}
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if id(parameter) in alive:
                raise RuntimeError(
                    f"{type(optimizer).__name__} still trains {alive[id(parameter)]} as it was "
                    "before channels were cut: make a new optimizer when "
                    "channel_pruner.reset_optimizer is true, or pass the old one to "
                    "prune(model, epoch, optimizer=optimizer)"
                )
