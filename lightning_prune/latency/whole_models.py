"""Whole networks of other widths as ONNX models, whose only use is to be timed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lightning_prune.export.timing_model import timing_model
from lightning_prune.functional.widths.width import least_width, narrower_widths
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels

_LEAST = 0.125
_SPREAD = 0.25
_FEWEST = 0.3


def whole_model(
    module: nn.Module, groups: ChannelGroups, widths: Mapping[str, int], example_input: Any
) -> bytes:
    """Return a network cut to some widths as an ONNX model for a batch of one sample.

    Args:
        module: The dense network; it is left as it is.
        groups: Its channel groups.
        widths: Group -> channels that it keeps, whichever; others keep all.
        example_input: Its input.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
        ValueError: the network cannot be converted.
    """
    network = copy_module(module).cpu().float().eval()
    keep = {n: torch.arange(w) for n, w in widths.items() if w < groups[n].channels}
    if keep:
        plan = PruningPlan(keep, {name: groups[name].channels for name in keep})
        cut_channels(network, groups, plan)
    return timing_model(network, example_input)


def random_widths(
    groups: ChannelGroups, names: Sequence[str], round_to: int, random: torch.Generator
) -> dict[str, int]:
    """Draw widths of some groups: a fraction for all of them, and some more or less for each.

    Args:
        groups: All groups of a network.
        names: Groups whose widths are drawn.
        round_to: Widths are multiples of it.
        random: Where from.
    """
    whole = _FEWEST + (1 - _FEWEST) * float(torch.rand((), generator=random))
    found = {}
    for name in names:
        group = groups[name]
        fewest = least_width(group.channels, _LEAST)
        allowed = narrower_widths(group.channels, fewest, group.round_to(round_to))
        wish = whole + _SPREAD * (2 * float(torch.rand((), generator=random)) - 1)
        off = [abs(width - wish * group.channels) for width in allowed]
        found[name] = allowed[off.index(min(off))]
    return found
