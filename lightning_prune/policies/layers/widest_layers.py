"""The seed's layer rule: the widest layers, at most one per block, of a range of blocks."""

import warnings
from typing import Annotated

from torch import nn

from lightning_prune.annotations import Such
from lightning_prune.arguments import Count
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.validation import validated


def block_of(layer: str, depth: int = 2) -> str:
    """Return the block of a layer: the first ``depth`` parts of its name, its own name left out.

    >>> block_of("network.backbone.p2.1.conv1.conv", 3)
    'network.backbone.p2'
    >>> block_of("conv1")
    'conv1'
    """
    parts = layer.split(".")
    return ".".join(parts[: max(1, min(depth, len(parts) - 1))])


class WidestLayers:
    """Select the N widest layers, at most some per block, of a range of blocks.

    Args:
        count: Number of layers to select.
        per_block: Most layers of one block; None: no limit.
        blocks: First and last block, counted from 1 in the order of the forward pass, both
            included; None: all.
        depth: Number of name parts that make a block (``network.backbone.p2``: 3).

    Raises:
        ValueError: a count below 1 or a range that is empty.
    """

    @validated
    def __init__(
        self,
        count: Count = 3,
        per_block: Count | None = 1,
        blocks: Annotated[
            tuple[int, int] | None,
            Such(lambda ends: 1 <= ends[0] <= ends[1], "[first, last] with 1 <= first <= last"),
        ] = None,
        depth: Count = 2,
    ) -> None:
        self.count = count
        self.per_block = per_block
        self.blocks = blocks
        self.depth = depth

    def select(self, model: nn.Module, groups: ChannelGroups) -> tuple[str, ...]:
        """Return the chosen groups, front to back.

        Raises:
            ValueError: the range of blocks holds no prunable layer.

        Warns:
            UserWarning: there are fewer layers to choose than ``count``.
        """
        order = list(dict.fromkeys(block_of(name, self.depth) for name in groups.prunable_layers))
        first, last = self.blocks or (1, len(order))
        inside = set(order[first - 1 : last])
        layers = [n for n in groups.prunable_layers if block_of(n, self.depth) in inside]
        if not layers:
            raise ValueError(f"blocks={self.blocks}: the model has blocks 1..{len(order)}: {order}")
        chosen: list[str] = []
        used: dict[str, int] = {}
        made = [(n, g.name) for n in layers for g in groups.groups_of(n)]
        for name, group in sorted(made, key=lambda pair: -_width(groups[pair[1]], pair[0])):
            block = block_of(name, self.depth)
            full = self.per_block is not None and used.get(block, 0) >= self.per_block
            if full or group in chosen or len(chosen) == self.count:
                continue
            used[block] = used.get(block, 0) + 1
            chosen.append(group)
        if len(chosen) < self.count:
            blocks = len({block_of(n, self.depth) for n in layers})
            way = "lower count" if self.per_block is None else "raise per_block or depth for more"
            warnings.warn(
                f"WidestLayers(count={self.count}) selects {len(chosen)} groups: there are "
                f"{len(layers)} prunable layers in {blocks} blocks, at most "
                f"{self.per_block or 'all'} of each; {way}",
                stacklevel=2,
            )
        return tuple(name for name in groups if name in chosen)


def _width(group: Group, layer: str) -> int:
    """Return how many positions of a layer's output belong to a group."""
    made = [m.index for m in group.members if m.layer == layer and m.role == "producer"]
    return max(len(index.unique()) for index in made)
