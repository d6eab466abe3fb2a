"""A function around the ``training_step`` that a Trainer calls, for a while."""

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

_NAME = "training_step"


class StepAround:
    """Stands around a module's training step until it is taken back.

    On the instance, where Lightning looks it up at each batch, alone or within DDP: what it returns
    is the loss that is scaled, divided among accumulated batches and differentiated.

    Args:
        module: The module that trains.
        around: ``(step, args, kwargs) -> output``, which calls the step itself.

    Attributes:
        on_instance: Whether the step was on the instance before: a compiled one, for example.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        around: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any],
    ) -> None:
        self._module = module
        self._own = vars(module).get(_NAME)
        self.on_instance = self._own is not None
        step = getattr(module, _NAME)

        # Lightning asks what is wrapped for its signature: whether it takes a batch_idx.
        @functools.wraps(step)
        def outer(*args: Any, **kwargs: Any) -> Any:
            return around(step, args, kwargs)

        vars(module)[_NAME] = outer

    def take_back(self) -> None:
        """Leave the module as it was."""
        if self._own is None:
            vars(self._module).pop(_NAME, None)
        else:
            vars(self._module)[_NAME] = self._own


def with_loss(output: Any, second: Any) -> Any:
    """Return what a training step gave, a loss or a dict with one, with another loss added."""
    if isinstance(output, dict) and "loss" in output:
        return {**output, "loss": output["loss"] + second.to(output["loss"])}
    return output + second.to(output)
