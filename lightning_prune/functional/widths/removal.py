"""The order in which channels of all layers are removed, and how far to go along it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from lightning_prune.functional.widths.fit import AllowedWidths, Cost, fit_widths
from lightning_prune.functional.widths.width import narrower_widths, near_widths

_ROUNDING = 1e-9  # 0.3 * 10 is 3.0000000000000004


@dataclass(frozen=True)
class Block:
    """Channels of one layer that go together.

    Attributes:
        layer: Position of the layer.
        width: Channels that the layer has once the block is gone.
        score: Place in the common order: blocks of lower score go first.
    """

    layer: int
    width: int
    score: float


@dataclass(frozen=True)
class RemovalPath:
    r"""One order in which blocks of channels of G layers are removed.

    The channels of a layer go from the least important one up, in blocks that leave an allowed
    width. Within a scope (a set of layers that are ranked together) blocks follow the mean
    importance of their channels. The score of a block is the fraction of its scope that is gone
    when its last channel is about to go,

    .. math:: s = (n - 1) / N

    n channels of the scope's N removed up to and with this block, so that every scope shrinks at
    the same ratio, and the ratio r removes :math:`\lceil rN \rceil` channels of each, rounded down
    to whole blocks.

    Attributes:
        importance: (C_g,) importance of each layer's channels, larger = keep; comparable within a
            scope.
        gone: (C_g,) bool, True = removed before; these go first, whatever their importance.
        scopes: Scope of each layer.
        least: Smallest width, at least 1; one for each layer, or one for all.
        round_to: Widths are multiples of it; one for each layer, or one for all.

    Source: scopes of structurally equal layers: Fang, Ma, Mi, Wang, 2024, Isomorphic Pruning for
    Vision Models, ECCV, arXiv 2407.04616.

    >>> first, second = torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.tensor([9.0, 0.5, 8.0, 7.0])
    >>> together = RemovalPath([first, second], [torch.zeros(4).bool()] * 2, [0, 0])
    >>> together.widths(0.5), RemovalPath(together.importance, together.gone, [0, 1]).widths(0.5)
    ([1, 3], [2, 2])
    """

    importance: Sequence[Tensor]
    gone: Sequence[Tensor]
    scopes: Sequence[int]
    least: int | Sequence[int] = 1
    round_to: int | Sequence[int] = 1

    @cached_property
    def _multiples(self) -> Sequence[int]:
        return self._of_each_layer(self.round_to)

    def _of_each_layer(self, given: int | Sequence[int]) -> Sequence[int]:
        return [given] * len(self.gone) if isinstance(given, int) else given

    @cached_property
    def removed_first(self) -> list[Tensor]:
        """Return the channels of each layer in the order in which they go, (C_g,) int64."""
        return [
            # Reversed, so that of equal channels the first stays.
            torch.argsort(values, descending=True, stable=True).flip(0)
            for values in self._values
        ]

    @cached_property
    def _values(self) -> list[Tensor]:
        return [
            values.double().cpu().masked_fill(gone.cpu(), -math.inf)
            for values, gone in zip(self.importance, self.gone, strict=True)
        ]

    @cached_property
    def start(self) -> list[int]:
        """Width of each layer with what is gone already."""
        return [int((~gone).sum()) for gone in self.gone]

    @cached_property
    def allowed(self) -> list[tuple[int, ...]]:
        """Return the widths that each layer may still have, from its own down."""
        limits = zip(self._of_each_layer(self.least), self._multiples, strict=True)
        return [
            narrower_widths(len(gone), *limit, start)
            for gone, limit, start in zip(self.gone, limits, self.start, strict=True)
        ]

    @cached_property
    def blocks(self) -> list[Block]:
        """All blocks that may still go, in order."""
        total: dict[int, int] = {}
        done: dict[int, int] = {}
        found: list[tuple[float, int, int, int]] = []
        for layer, (values, order) in enumerate(zip(self._values, self.removed_first, strict=True)):
            channels, scope = len(order), self.scopes[layer]
            total[scope] = total.get(scope, 0) + channels
            done[scope] = done.get(scope, 0) + channels - self.start[layer]
            upward = values[order].tolist()
            for wide, width in pairwise(self.allowed[layer]):
                block = upward[channels - wide : channels - width]
                found.append((sum(block) / len(block), layer, width, len(block)))
        blocks = []
        for _, layer, width, size in sorted(found, key=lambda block: (block[0], block[1])):
            scope = self.scopes[layer]
            done[scope] += size
            blocks.append(Block(layer, width, (done[scope] - 1) / total[scope]))
        return sorted(blocks, key=lambda block: block.score)

    def _after(self, count: int) -> list[int]:
        widths = list(self.start)
        for block in self.blocks[:count]:
            widths[block.layer] = block.width
        return widths

    @property
    def narrowest(self) -> list[int]:
        """Width of each layer when all has gone that may go."""
        return [layer[-1] for layer in self.allowed]

    def widths(self, ratio: float) -> list[int]:
        """Return the width of each layer at a pruning ratio in [0, 1]."""
        return self._after(sum(block.score < ratio - _ROUNDING for block in self.blocks))

    def widths_within(
        self, cost: Cost, budget: float, tolerance: float, max_shift: int | None = None
    ) -> list[int] | None:
        """Return the widths that meet a budget from below, as early on the path as possible.

        First the path is followed until the budget is met. Then blocks are given back, the last
        removed first, while the budget holds; where more than ``tolerance`` of it is left, single
        blocks of different layers are exchanged; see ``fit_widths``.

        Args:
            cost: Cost of G widths; see ``fit_widths``.
            budget: What the widths may cost at most.
            tolerance: How much of the budget may be left before blocks are exchanged.
            max_shift: Most blocks by which a layer may leave the ratio at which the path meets the
                budget; for scopes of one layer each. None: as many as it takes.

        Returns:
            G widths; None where even the narrowest layers cost more.

        >>> layers = [torch.arange(6.0), torch.arange(6.0) + 0.5]
        >>> path = RemovalPath(layers, [torch.zeros(6).bool()] * 2, [0, 0])
        >>> def cost(widths):
        ...     return 10 * widths[0] + widths[1]
        >>> path.widths_within(cost, 37, tolerance=10)
        [3, 6]
        """
        if cost(self.narrowest) > budget:
            return None
        low, high = -1, len(self.blocks)  # the budget is met after `high` blocks, not after `low`
        while high - low > 1:
            middle = (low + high) // 2
            met = cost(self._after(middle)) <= budget
            low, high = (low, middle) if met else (middle, high)
        found = self._after(high)
        if high == 0:
            return found
        scores = {(block.layer, block.width): block.score for block in self.blocks}
        # With the fraction s of its channels removed, every layer is less than a block from s C.
        kept = 1 - self.blocks[high - 1].score
        allowed = []
        for layer, (width, gone, multiple) in enumerate(
            zip(found, self.gone, self._multiples, strict=True)
        ):
            far = math.inf if max_shift is None else max_shift * multiple
            own = near_widths(self.allowed[layer][::-1], kept * len(gone), far, width)
            allowed.append(AllowedWidths(own, [-scores[layer, narrow] for narrow in own[:-1]]))
        return fit_widths(found, allowed, cost, budget, tolerance)
