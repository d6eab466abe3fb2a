"""Training of a cut copy, tried as far as the dense copy can do it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.trial_example import in_training

Run = Callable[[nn.Module], Any]

_LONGEST = 160  # characters of a foreign error in a reason


class TrialTraining:
    """What training does with a model, and in which ways it can be tried.

    Args:
        dense: The model before any cut; only copies of it are run.
        example: Its input; doubled where it is too small for batch norms.
        forward: How to call the model with it.
        step: What training does with the model besides; None: nothing.
    """

    def __init__(
        self,
        dense: nn.Module,
        example: Any,
        forward: Callable[[nn.Module, Any], Any],
        step: Run | None,
    ) -> None:
        def one_pass(given: Any) -> Run:
            return lambda net: forward(net, given)

        twice = tree_map(
            lambda v: torch.cat([v, v]) if isinstance(v, Tensor) and v.ndim else v, example
        )
        self._dense = dense
        self._ways = {"the forward pass in training mode": [one_pass(example), one_pass(twice)]}
        if step is not None:
            self._ways["training_step"] = [step]
        self._proven: set[str] = set()  # what the dense copy can do

    def fault(self, net: nn.Module) -> str | None:
        """Train a cut copy; return what fails that the dense copy can do, None where nothing does.

        Args:
            net: The copy; its statistics change.
        """
        for what, ways in self._ways.items():
            while ways and (error := _error(ways[0], net)) is not None:
                # The dense copy is asked only now: most cut copies can do it.
                if what in self._proven or _error(ways[0], copy_module(self._dense)) is None:
                    self._proven.add(what)
                    return (
                        f"{what} fails once its channels are cut ({shortened(error)}): something "
                        "that only training uses takes them"
                    )
                del ways[0]  # it wants labels, or a larger batch: nothing can be learned from it
        return None


def _error(run: Run, net: nn.Module) -> Exception | None:
    """Return what a run in training mode raises, None where it ends well."""
    try:
        with torch.no_grad():
            run(in_training(net))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return error
    return None


def shortened(error: BaseException) -> str:
    r"""Return a foreign error in one short line.

    >>> shortened(ValueError("a\nb"))
    'ValueError: a b'
    """
    text = " ".join(str(error).split())
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return f"{type(error).__name__}: {short}"
