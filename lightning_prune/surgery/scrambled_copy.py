"""A copy of a model on which faults show: other weights, of which it still makes numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.surgery.compare import eval_outputs
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.scramble import scramble
from lightning_prune.surgery.trial_example import cast, without_listeners


def scrambled_copy(
    model: nn.Module,
    examples: Sequence[Any],
    dtype: torch.dtype | None = None,
    forward: Callable[[nn.Module, Any], Any] = call,
    seed: int = 0,
) -> tuple[nn.Module, Any] | None:
    """Return a copy with scrambled weights, gentler ones where those give NaN or infinity.

    The copy has the model's own weights where no others give finite outputs.

    Args:
        model: The model; it stays as it is.
        examples: Inputs, the one that is liked best first.
        dtype: Precision of the copy and its input; None: theirs.
        forward: How to call the model with an input.
        seed: Seed of the weights.

    Returns:
        The copy in eval mode, and the first input with which it gives finite outputs; None where
        there is none.

    >>> net = nn.Linear(2, 1)
    >>> _ = nn.init.zeros_(net.weight)
    >>> copy, example = scrambled_copy(net, [torch.ones(1, 2)])
    >>> bool(copy.weight.any())
    True
    """
    given = [one if dtype is None else cast(one, dtype) for one in examples]
    for gentle in (False, True, None):
        net = without_listeners(copy_module(model)).eval()
        net = net if dtype is None else net.to(dtype)
        if gentle is not None:
            scramble(net, seed, gentle)
        for example in given:
            if _is_finite(net, example, forward):
                return net, example
    return None


def _is_finite(net: nn.Module, example: Any, forward: Callable[[nn.Module, Any], Any]) -> bool:
    try:
        outputs = eval_outputs(net, example, forward=forward)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # values, or a precision, that a user's code does not take
        return False
    return all(bool(o.isfinite().all()) for o in outputs if o.is_floating_point())
