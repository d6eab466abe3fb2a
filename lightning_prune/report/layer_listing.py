"""What of a network can be pruned, as text."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.group_listing import group_listing
from lightning_prune.graph.macs import MacModel


def layer_listing(
    model: nn.Module, groups: ChannelGroups, example_input: Any, names: Sequence[str] | None = None
) -> str:
    """Return the groups, a table of all prunable layers, and the layers that are refused.

    The MACs of a layer are its own fraction of the dense model's; those of a group are what
    depends on its channels: it would go with all of them, from every layer that makes, carries or
    reads them.

    Args:
        model: The network.
        groups: Its channel groups.
        example_input: The input that the MACs are counted for.
        names: The groups that are selected, marked with ``*`` in the table; None: all.

    >>> import torch
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    >>> example = torch.zeros(1, 3, 4, 4)
    >>> print(layer_listing(net, trace_groups(net, example), example))
    *************
    Group number 1:
    Source conv: 0
    Dependencies:
    2
    *************
    <BLANKLINE>
    There are 1 groups of layers, with the following source convs:
    ['0']
    <BLANKLINE>
      layer  channels  of MACs  group  group's MACs
    * 0             8    50.0%      1        100.0%
    <BLANKLINE>
    1 layers cannot be pruned:
      2: its channels reach the output of the model
    <BLANKLINE>
    Sequential: 1 prunable layers in 1 groups, 0.00 million MACs; 1 groups are selected (*).
    """
    macs = MacModel.of(model, groups, example_input)
    chosen = tuple(groups) if names is None else tuple(names)
    lines = [group_listing(model, groups, chosen), "", *_table(groups, macs, chosen)]
    if groups.refused:
        lines += ["", f"{len(groups.refused)} layers cannot be pruned:"]
        lines += [f"  {name}: {reason}" for name, reason in groups.refused.items()]
    lines += [
        "",
        f"{type(model).__name__}: {len(groups.prunable_layers)} prunable layers in {len(groups)} "
        f"groups, {macs.total / 1e6:.2f} million MACs; {len(chosen)} groups are selected (*).",
    ]
    return "\n".join(lines)


def _table(groups: ChannelGroups, macs: MacModel, chosen: Sequence[str]) -> list[str]:
    """Return a line per prunable layer; groups are numbered as in the listing above them."""
    total = macs.total or 1
    numbers = {name: number for number, name in enumerate(chosen, 1)}
    rows = [("", "layer", "channels", "of MACs", "group", "group's MACs")]
    made = [(layer, group) for layer in groups.prunable_layers for group in groups.groups_of(layer)]
    for layer, group in made:
        own = f"{macs.layers.get(layer, 0) / total:.1%}"
        tied = ""
        if layer == group.root:
            tied = f"{1 - macs.remaining({group.name: 0}) / total:.1%}"
        number = numbers.get(group.name)
        mark, place = ("", "-") if number is None else ("*", str(number))
        rows.append((mark, layer, str(group.channels), own, place, tied))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return [
        f"{row[0]:<1} {row[1]:<{widths[1]}}  "
        + "  ".join(f"{row[column]:>{widths[column]}}" for column in range(2, 6)).rstrip()
        for row in rows
    ]
