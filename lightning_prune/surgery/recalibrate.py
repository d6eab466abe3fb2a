"""Norm statistics estimated again: masks and cuts leave them those of another network."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_prune.graph.forward_pass import untouched


def norm_statistics(model: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a model's norms, each once, to be written to."""
    kinds = ("running_mean", "running_var")
    return [value for name, value in model.named_buffers() if name.rpartition(".")[2] in kinds]


def recalibrate_norms(
    model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any]
) -> int:
    """Re-estimate the running statistics of batch norms as the mean over some batches.

    Only batch norms that are in training mode are touched: a norm in eval mode was frozen on
    purpose. Everything else runs in eval mode; momentum, modes and random state are those from
    before afterwards. Without a batch nothing changes, and without a norm no batch is read.

    Args:
        model: The live model.
        batches: Batches on the model's device.
        forward: ``(model, batch) -> anything``, the forward pass.

    Returns:
        The number of batches that were used.

    >>> norm = nn.BatchNorm1d(1).train()
    >>> batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])]
    >>> recalibrate_norms(norm, batches, lambda model, batch: model(batch))
    2
    >>> norm.running_mean.tolist(), norm.running_var.tolist(), norm.momentum
    ([4.0], [2.0], 0.1)
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    used = 0
    with untouched(model), torch.no_grad():
        model.eval()
        try:
            for batch in batches:
                if used == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        # None: a cumulative average, every batch with the same weight.
                        norm.momentum = None
                        norm.training = True
                forward(model, batch)
                used += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return used
