"""How near a network's outputs are to those of another one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.graph.forward_pass import call, untouched


def floats_of(outputs: Any) -> list[Tensor]:
    """Return the tensors of outputs that hold real numbers, in their order."""
    return [v for v in tree_leaves(outputs) if isinstance(v, Tensor) and v.is_floating_point()]


def relative_error(outputs: Any, dense_outputs: Any) -> Tensor:
    r"""Return the squared difference of outputs as a fraction of the variance of the dense ones.

    .. math:: e = \frac{1}{N} \sum_{n=1}^N
        \frac{\sum_i (y_{ni} - \hat y_{ni})^2}{\sum_i (\hat y_{ni} - \bar y_n)^2}

    over the N tensors of the outputs; 0: equal, 1: as far off as their mean.

    >>> relative_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])).item()
    2.0
    """
    errors = []
    for own, dense in zip(floats_of(outputs), floats_of(dense_outputs), strict=True):
        whole = (dense.float() - dense.float().mean()).square().sum()
        errors.append((own.float() - dense.float()).square().sum() / whole.clamp(min=1e-12))
    return torch.stack(errors).mean() if errors else torch.zeros(())


def distillation_loss(module: nn.Module) -> Callable[[Any, Any], Tensor]:
    """Return the module's own ``distillation_loss``, or ``relative_error``."""
    own = getattr(module, "distillation_loss", None)
    return own if callable(own) else relative_error


@torch.no_grad()
def outputs_of(module: nn.Module, batches: Sequence[Any]) -> list[Any]:
    """Return what a module gives in eval mode for each batch."""
    with untouched(module):
        module.eval()
        return [call(module, batch) for batch in batches]


def agreement(module: nn.Module, batches: Sequence[Any], dense_outputs: Sequence[Any]) -> float:
    """Return how far a network agrees with the dense one on some batches: 1 where it is the same.

    By the module's own ``agreement(outputs, dense_outputs)``, which gets a list of both; without
    one, 1 less the mean relative error of the outputs, at least 0.

    Args:
        module: The pruned network.
        batches: Inputs.
        dense_outputs: What the dense network gave for them.
    """
    outputs = outputs_of(module, batches)
    own = getattr(module, "agreement", None)
    if callable(own):
        return float(own(outputs, dense_outputs))
    errors = [float(relative_error(a, b)) for a, b in zip(outputs, dense_outputs, strict=True)]
    return max(0.0, 1.0 - sum(errors) / max(1, len(errors)))
