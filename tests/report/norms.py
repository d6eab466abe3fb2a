"""A history of norms and its analysis, for the tests of figures and tables."""

from typing import Any

import torch

from lightning_prune.report.norm_analysis import norm_analysis
from lightning_prune.report.norm_history import NormHistory


def history(groups: int = 3, epochs: int = 4, channels: int = 20) -> NormHistory:
    """Norms that fall at a pace of their own each; half of the channels hardly."""
    generator = torch.Generator().manual_seed(0)
    times = torch.arange(epochs)[:, None]
    norms = {}
    for place in range(groups):
        rate = torch.rand(channels, generator=generator) * (torch.arange(channels) % 2)
        norms[f"network.neck.block{place}.conv1.conv"] = 0.05 * torch.exp(-rate * times)
    return NormHistory(tuple(range(0, 2 * epochs, 2)), norms)


def content(found: NormHistory, metric: bool = True, **options: Any) -> dict[str, Any]:
    """What `analyze` writes about it."""
    analysis = norm_analysis(found, **options)
    for row in analysis["epochs"]:
        row |= {"file": f"epoch_{row['epoch']:03d}.ckpt", "also": []}
        row["metric"] = row["epoch"] / 100 if metric else None
    name = "val/map50_95" if metric else None
    return analysis | {"metric": name, "skipped": {}, "command": "python train.py +pruning=channel"}
