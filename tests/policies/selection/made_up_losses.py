"""Losses as if they were measured, for selections whose ranking needs some."""

import zlib

import torch
from torch import nn

from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.selection.ratio_selection import RatioSelection


def made_up(name: str, widths: tuple[int, ...]) -> Elimination:
    """Losses that differ between groups and grow faster the narrower they become."""
    weight = 1 + zlib.crc32(name.encode()) % 50
    losses = tuple(weight * (1 - width / widths[0]) ** 2 for width in widths)
    return Elimination(torch.arange(widths[0] - widths[-1]), widths, losses)


def evidence(selection: RatioSelection, net: nn.Module) -> dict[str, Evidence] | None:
    """Return them for all groups; None where the selection needs none."""
    if "losses" not in selection.needs:
        return None
    return {
        name: Evidence(net, selection.groups[name], elimination=made_up(name, widths))
        for name, widths in selection.allowed.items()
    }
