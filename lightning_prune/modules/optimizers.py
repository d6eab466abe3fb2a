"""The optimizers that modules build by name."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


def sgd_or_adamw(
    decayed: Iterable[nn.Parameter], others: Iterable[nn.Parameter], hparams: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Build SGD (Nesterov) or AdamW, betas (0.9, 0.999), in two groups.

    Args:
        decayed: Parameters with weight decay.
        others: Those without.
        hparams: ``optimizer`` (sgd or adamw), ``lr``, ``momentum`` and ``weight_decay``.

    >>> values = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    >>> layer = nn.Linear(2, 1)
    >>> [group["weight_decay"] for group in
    ...  sgd_or_adamw([layer.weight], [layer.bias], values).param_groups]
    [0.01, 0.0]
    """
    groups: list[dict[str, Any]] = [
        {"params": list(decayed)},
        {"params": list(others), "weight_decay": 0.0},
    ]
    lr, decay, momentum = hparams["lr"], hparams["weight_decay"], hparams["momentum"]
    if hparams["optimizer"] == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), weight_decay=decay)
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=decay, nesterov=momentum > 0
    )


def by_dimension(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trained parameters with more than one dimension, and the others."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
