"""What of a network is pruned, layer by layer, as a table."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel


@dataclass(frozen=True)
class LayerRow:
    """A layer that makes channels, and what becomes of it.

    Attributes:
        layer: Its name.
        macs_fraction: Fraction of the dense model's MACs that is its own.
        group: The group whose channels it makes; "" where it is refused.
        channels: The group's channels.
        kept: How many of them stay.
        reason: Why it is refused; "" where it is pruned.
    """

    layer: str
    macs_fraction: float
    group: str
    channels: int
    kept: int
    reason: str


def layer_rows(
    groups: ChannelGroups, macs: MacModel, widths: Mapping[str, int]
) -> tuple[LayerRow, ...]:
    """Return a row for each group that a layer makes and each refused layer, in forward order.

    Args:
        groups: The channel groups.
        macs: The dense model's MACs.
        widths: Name of a group -> its channels that stay.
    """
    total = macs.total or 1
    place = {name: number for number, name in enumerate(groups.order)}
    rows = [
        LayerRow(layer, macs.layers.get(layer, 0) / total, name, group.channels, widths[name], "")
        for name, group in groups.items()
        for layer in group.producers
    ]
    rows += [
        LayerRow(layer, macs.layers.get(layer, 0) / total, "", 0, 0, reason)
        for layer, reason in groups.refused.items()
    ]
    rows.sort(key=lambda row: place.get(row.layer, len(place)))
    return tuple(rows)


def prunable_table(rows: tuple[LayerRow, ...], macs_before: int, macs_after: int) -> str:
    """Return the rows as text, with the MACs of the whole model below.

    >>> rows = (LayerRow("a", 0.75, "a", 8, 4, ""), LayerRow("b", 0.25, "", 0, 0, "the output"))
    >>> print(prunable_table(rows, 64, 32))
    layer  of MACs  group  channels  status
    a        75.0%  a        8 -> 4  pruned
    b        25.0%                -  refused: the output
    <BLANKLINE>
    64 MACs before, 32 after: 50.0% are left.
    """
    cells = [("layer", "of MACs", "group", "channels", "status")]
    for row in rows:
        widths = "-" if row.reason else f"{row.channels} -> {row.kept}"
        status = f"refused: {row.reason}" if row.reason else "pruned"
        cells.append((row.layer, f"{row.macs_fraction:.1%}", row.group, widths, status))
    wide = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:<{wide[2]}}  {d:>{wide[3]}}  {e}"
        for a, b, c, d, e in cells
    ]
    left = macs_after / macs_before if macs_before else 1.0
    return "\n".join(
        [*lines, "", f"{macs_before} MACs before, {macs_after} after: {left:.1%} are left."]
    )
