"""The order in which channels of all layers are removed, and how far to go along it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from lightning_prune.functional.widths.budget import Cost, give_back

_ROUNDING = 1e-9  # 0.3 * 10 is 3.0000000000000004


def rungs(
    channels: int, max_pruning_ratio: float = 1.0, round_to: int = 1, start: int | None = None
) -> tuple[int, ...]:
    """Return the widths that a layer may have, from its own down.

    All but the first are multiples of ``round_to``, at least one block, and no smaller than the
    largest pruning ratio allows.

    Args:
        channels: C, the width of the dense layer.
        max_pruning_ratio: Largest fraction of the channels that is removed, in (0, 1].
        round_to: Widths are multiples of it.
        start: Width to start from, where some channels are gone already; None: C.

    >>> rungs(20, 0.7, round_to=4), rungs(20, 0.7, round_to=8), rungs(6, round_to=8)
    ((20, 16, 12, 8), (20, 16, 8), (6,))
    """
    start = channels if start is None else start
    least = max(1, math.ceil((1 - max_pruning_ratio) * channels - _ROUNDING))
    least = math.ceil(least / round_to) * round_to
    below = range((start - 1) // round_to * round_to, least - 1, -round_to)
    return (start, *below)


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

    The channels of a layer go from the least important one up, in blocks that leave a rung of the
    layer. Within a scope (a set of layers that are ranked together) blocks follow the mean
    importance of their channels. The score of a block is the share of its scope that is gone when
    its last channel is about to go,

    .. math:: s = (n - 1) / N

    n channels of the scope's N removed up to and with this block, so that every scope shrinks at
    the same ratio, and the ratio r removes :math:`\lceil rN \rceil` channels of each, rounded down
    to whole blocks.

    Attributes:
        importance: (C_g,) importance of each layer's channels, larger = keep; comparable within a
            scope.
        gone: (C_g,) bool, True = removed before; these go first, whatever their importance.
        scopes: Scope of each layer.
        max_pruning_ratio: Largest fraction of a layer's channels that is removed, in (0, 1].
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
    max_pruning_ratio: float = 1.0
    round_to: int | Sequence[int] = 1

    @cached_property
    def _multiples(self) -> Sequence[int]:
        given = self.round_to
        return [given] * len(self.gone) if isinstance(given, int) else given

    @cached_property
    def removed_first(self) -> list[Tensor]:
        """The channels of each layer in the order in which they go, (C_g,) int64."""
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
    def rungs(self) -> list[tuple[int, ...]]:
        """The widths that each layer may still have, from its own down."""
        return [
            rungs(len(gone), self.max_pruning_ratio, multiple, start)
            for gone, start, multiple in zip(self.gone, self.start, self._multiples, strict=True)
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
            for wide, width in zip(self.rungs[layer], self.rungs[layer][1:], strict=False):
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
        return [layer[-1] for layer in self.rungs]

    def widths(self, ratio: float) -> list[int]:
        """Return the width of each layer at a pruning ratio in [0, 1]."""
        return self._after(sum(block.score < ratio - _ROUNDING for block in self.blocks))

    def widths_within(
        self, cost: Cost, budget: float, tolerance: float, drift: int | None = None
    ) -> list[int] | None:
        """Return the widths that meet a budget from below, as early on the path as possible.

        First the path is followed until the budget is met. Then blocks are given back, the last
        removed first, while the budget holds; where more than ``tolerance`` of it is left, single
        blocks of different layers are exchanged.

        Args:
            cost: Cost of G widths; see ``give_back``.
            budget: What the widths may cost at most.
            tolerance: How much of the budget may be left before blocks are exchanged.
            drift: How many blocks a layer may leave the ratio at which the path meets the budget;
                for scopes of one layer each. None: as many as it takes.

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
        if high == 0:
            return self._after(0)
        found = self._after(high)
        bounds = self._bounds(found, high, drift)
        found = give_back(found, self._wider(found, bounds), cost, budget)
        while budget - cost(found) > tolerance:
            better = self._exchange(found, bounds, cost, budget, tolerance)
            if better is None:
                break
            found = give_back(better, self._wider(better, bounds), cost, budget)
        return found

    def _bounds(
        self, widths: list[int], count: int, drift: int | None
    ) -> list[tuple[float, float]]:
        """Return the least and the largest width of each layer that may be taken."""
        if drift is None:
            return [(0, math.inf)] * len(widths)
        # With the share s of its channels removed, every layer is less than a block from s C.
        kept = 1 - self.blocks[count - 1].score
        found = []
        for width, gone, multiple in zip(widths, self.gone, self._multiples, strict=True):
            middle, reach = kept * len(gone), drift * multiple
            found.append((min(width, middle - reach), max(width, middle + reach)))
        return found

    @cached_property
    def _scores(self) -> dict[tuple[int, int], float]:
        """Score of the block that brings a layer to a width."""
        return {(block.layer, block.width): block.score for block in self.blocks}

    def _wider(
        self, widths: list[int], bounds: list[tuple[float, float]]
    ) -> list[list[tuple[float, int]]]:
        """Return what each layer can be given back, its last block first."""
        found = []
        for layer, (width, (_, most)) in enumerate(zip(widths, bounds, strict=True)):
            steps = list(self.rungs[layer])
            upward = reversed(steps[: steps.index(width) + 1])
            found.append(
                [
                    (-self._scores[layer, narrow], wide)
                    for narrow, wide in pairwise(upward)
                    if wide <= most
                ]
            )
        return found

    def _narrower(
        self, widths: list[int], bounds: list[tuple[float, float]]
    ) -> list[tuple[float, int, int]]:
        """Return the next block of each layer as (score, layer, width)."""
        found = []
        for layer, (width, (least, _)) in enumerate(zip(widths, bounds, strict=True)):
            steps = self.rungs[layer]
            below = steps[steps.index(width) + 1 :]
            if below and below[0] >= least:
                found.append((self._scores[layer, below[0]], layer, below[0]))
        return found

    def _exchange(
        self,
        widths: list[int],
        bounds: list[tuple[float, float]],
        cost: Cost,
        budget: float,
        tolerance: float,
    ) -> list[int] | None:
        """Give one block back and take one of another layer instead, for a better fit.

        Of all exchanges that come within the tolerance the one whose scores differ least, else
        the one that leaves least of the budget; None where none leaves less than before.
        """
        best: tuple[tuple[bool, float], list[int]] | None = None
        now = cost(widths)
        for back, rungs_up in enumerate(self._wider(widths, bounds)):
            for score, taken, width in self._narrower(widths, bounds) if rungs_up else []:
                if taken == back:
                    continue
                other = list(widths)
                other[back], other[taken] = rungs_up[0][1], width
                spent = cost(other)
                if not now < spent <= budget:
                    continue
                close = budget - spent <= tolerance
                rank = (not close, score + rungs_up[0][0] if close else budget - spent)
                if best is None or rank < best[0]:
                    best = rank, other
        return None if best is None else best[1]
