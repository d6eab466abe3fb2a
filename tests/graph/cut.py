"""Masks and cuts a network, and says by how much the two differ."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.compare import eval_outputs, largest_difference, noise_like
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.scramble import scramble
from tests.networks import random_plan


def mask_and_cut(net: nn.Module, example: Any, seed: int = 0) -> float:
    """Remove half of every group, scrambled; return |masked - cut| as a fraction of the output."""
    scramble(net, seed)
    example = noise_like(example)
    groups = trace_groups(net, example)
    plan = random_plan(groups, seed)
    ChannelMask(net, groups, plan).apply()
    masked = eval_outputs(net, example)
    assert all(value.isfinite().all() for value in masked)
    cut_channels(net, groups, plan)
    return largest_difference(masked, eval_outputs(net, example))


def partition(groups: ChannelGroups, name: str) -> dict[str, list[list[int]]]:
    """Return the rows of each producer of a group, by channel."""
    found: dict[str, list[list[int]]] = {}
    group = groups[name]
    for member in group.members:
        if member.role == "producer":
            rows: Sequence[int] = member.index.tolist()
            channels = member.channel.tolist()
            found[member.layer] = [
                [row for row, own in zip(rows, channels, strict=True) if own == channel]
                for channel in range(group.channels)
            ]
    return found


def widths(net: nn.Module) -> list[tuple[int, int]]:
    """Return channels in and out of every convolution."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [(m.in_channels, m.out_channels) for m in net.modules() if isinstance(m, kinds)]
