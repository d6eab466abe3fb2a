"""Which channels layers can do without once the others are refitted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

# Fraction of a consumer's inputs that may be gone before its matrices are made smaller.
_DEAD = 0.15


@dataclass(frozen=True)
class Consumer:
    """A layer that reads the channels of a group, among others.

    Attributes:
        products: Centred inner products of its inputs, (n, n): a free constant takes the means.
        weight: (m, n).
        blocks: (C, b) int64, the inputs that each of the group's C channels makes.
        importance: (m,) what a squared error of each output costs; None: all together, the variance
            of all outputs costs 1.
    """

    products: Tensor
    weight: Tensor
    blocks: Tensor
    importance: Tensor | None = None


@dataclass(frozen=True)
class Elimination:
    """The order in which channels go, and what that costs.

    Attributes:
        order: (C - least,) int64, channels that go, the first one first.
        widths: Widths for which a loss is known, descending from C.
        losses: At each, the squared error that the consumers cannot repair, as a fraction of the
            variance of their outputs, summed over the consumers.
    """

    order: Tensor
    widths: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def importance(self) -> Tensor:
        """Return the most that a channel had cost when each of them went, (C,) float64.

        Channels that never went get as much as the last one that did; of equal ones the first to
        go has least.
        """
        costs = [0.0]
        for (wide, narrow), (before, after) in zip(
            pairwise(self.widths), pairwise(self.losses), strict=True
        ):
            each = max(costs[-1], (after - before) / (wide - narrow))
            costs += [each] * (wide - narrow)
        channels = self.widths[0]
        costs += [costs[-1]] * (channels + 1 - len(costs))
        # Apart by less than any loss means, so that sorting finds the order again.
        ranks = torch.arange(1, channels + 1, dtype=torch.float64) * (1e-9 * costs[-1] + 1e-30)
        gone = torch.zeros(channels, dtype=torch.bool)
        gone[self.order] = True
        order = torch.cat([self.order, torch.nonzero(~gone).flatten()])
        found = torch.empty(channels, dtype=torch.float64)
        found[order] = torch.tensor(costs[1:], dtype=torch.float64) + ranks
        return found

    def keep(self, width: int) -> Tensor:
        """Return which channels stay at a width, sorted."""
        channels = self.widths[0]
        kept = torch.ones(channels, dtype=torch.bool)
        kept[self.order[: channels - width]] = False
        return torch.nonzero(kept).flatten()


def _inverse(products: Tensor, damping: float) -> Tensor:
    """Return the inverse of products with as much on the diagonal as that needs."""
    one = torch.eye(len(products)).to(products)
    factor, failed = torch.linalg.cholesky_ex(products + damping * one)
    while bool(failed) and math.isfinite(damping):
        # Where inputs hardly vary around a large mean, rounding leaves negative squares.
        damping *= 10
        factor, failed = torch.linalg.cholesky_ex(products + damping * one)
    inverse: Tensor = torch.cholesky_inverse(factor)
    return inverse


class _Repaired:
    """A consumer whose weights follow what was taken from it.

    Args:
        consumer: The layer.
        ridge: Regularization, as a fraction of the mean squared input.
    """

    def __init__(self, consumer: Consumer, ridge: float) -> None:
        products, self.weight = consumer.products.double(), consumer.weight.double().clone()
        self.blocks = consumer.blocks
        if consumer.importance is None:
            # In units of the outputs' variance all consumers count the same.
            energy = torch.einsum("oi,ij,oj->", self.weight, products, self.weight)
            # Outputs that do not vary, but for rounding, cost nothing.
            self.scale = 1.0 / float(energy) if float(energy) > 1e-30 else 0.0
        else:
            self.weight *= consumer.importance.to(self.weight).sqrt()[:, None]
            self.scale = 1.0
        damping = float(ridge * products.diagonal().mean())
        self.inverse = _inverse(products, max(damping, 1e-30))
        self._gone = torch.zeros(len(products), dtype=torch.bool)

    def scores(self) -> Tensor:
        """Return for each channel what its block alone would cost, (C,)."""
        b = self.blocks
        inner = self.inverse[b[:, :, None], b[:, None, :]]  # (C, b, b)
        gone = self.weight.T[b]  # (C, b, m)
        cost: Tensor = (gone * torch.linalg.solve(inner, gone)).sum((1, 2))
        return self.scale * cost

    def remove(self, channels: Tensor) -> float:
        """Remove channels, refit the others, and return the cost."""
        rows = self.blocks[channels].flatten()
        inner = self.inverse[rows][:, rows]
        gone = self.weight[:, rows]
        solved = torch.linalg.solve(inner, torch.cat([gone.T, self.inverse[rows]], dim=1))
        given, taken = solved.split([len(gone), len(self.inverse)], dim=1)
        cost = self.scale * float((gone.T * given).sum())
        across = self.inverse[:, rows]
        self.weight.addmm_(given.T, across.T, alpha=-1)
        self.inverse.addmm_(across, taken, alpha=-1)
        # Rounding must not let what is gone come back.
        self.weight[:, rows] = 0
        self.inverse[rows] = 0
        self.inverse[:, rows] = 0
        self.inverse[rows, rows] = 1
        self._gone[rows] = True
        if self._gone.float().mean() > _DEAD:
            self._close_up()
        return cost

    def _close_up(self) -> None:
        """Leave out the inputs that are gone: every update costs their square."""
        left = torch.nonzero(~self._gone).flatten()
        self.inverse = self.inverse[left][:, left]
        self.weight = self.weight[:, left]
        place = torch.zeros(len(self._gone), dtype=torch.int64)
        place[left] = torch.arange(len(left))
        # Channels that are gone stand for others from now on: nobody asks for their scores.
        block = place[self.blocks]
        alive = ~self._gone[self.blocks].any(1)
        self.blocks = torch.where(alive[:, None], block, block[alive][:1])
        self._gone = torch.zeros(len(left), dtype=torch.bool)


def eliminate(
    consumers: Sequence[Consumer],
    widths: Sequence[int],
    *,
    ridge: float = 0.01,
    portion: float = 0.0625,
    stops: int = 64,
) -> Elimination:
    r"""Remove the channels of a group whose loss its consumers can best repair, one by one.

    Where a channel c goes and the weights of all others are refitted, the squared error of a
    consumer with inner products H of its inputs grows by

    .. math:: s_c = tr( W_c ([H^{-1}]_{cc})^{-1} W_c^T )

    with W_c the columns that read the channel. The channels of the smallest sum over the consumers
    go; weights and inverse follow by the downdates of a block,

    .. math:: W \leftarrow W - W_c ([H^{-1}]_{cc})^{-1} [H^{-1}]_{c\cdot}, \qquad
        H^{-1} \leftarrow H^{-1} - [H^{-1}]_{\cdot c} ([H^{-1}]_{cc})^{-1} [H^{-1}]_{c\cdot}

    Args:
        consumers: The layers that read the group; each is measured in the variance of its outputs.
        widths: Widths whose losses are wanted, descending from C.
        ridge: Regularization as a fraction of the mean squared input, positive.
        portion: Fraction of the remaining channels that goes at once, in (0, 1]; at least one.
        stops: At how many widths a loss is measured at most; those between are interpolated. Every
            removal costs the square of all inputs, of which wide layers have thousands.

    Returns:
        The order down to the last width, and the loss at each.

    Source: Frantar, Alistarh, 2022, Optimal Brain Compression, NeurIPS, arXiv 2208.11580; groups:
    Kurtic, Frantar, Alistarh, 2023, ZipLM, NeurIPS, arXiv 2302.04089.

    >>> products = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 0.5]])
    >>> consumer = Consumer(products, torch.tensor([[0.5, 1.0, 1.0]]), torch.arange(3)[:, None])
    >>> found = eliminate([consumer], [3, 2, 1], ridge=1e-6)
    >>> found.keep(2).tolist(), found.keep(1).tolist()  # the second one can stand for the first
    ([1, 2], [1])
    >>> [round(loss, 3) for loss in found.losses]
    [0.0, 0.018, 0.207]
    """
    channels = widths[0]
    repaired = [_Repaired(consumer, ridge) for consumer in consumers]
    left = torch.ones(channels, dtype=torch.bool)
    order: list[Tensor] = []
    measured = _apart(widths, stops)
    losses = [0.0]
    for wide, narrow in pairwise(measured):
        lost, width = losses[-1], wide
        while width > narrow:
            count = min(width - narrow, max(1, math.ceil(portion * width)))
            scores = torch.stack([one.scores().cpu() for one in repaired]).sum(0)
            # Equal ones go from the front, in every run.
            scores = scores.masked_fill(~left, math.inf)
            going = torch.argsort(scores, stable=True)[:count]
            lost += sum(one.remove(going) for one in repaired)
            left[going] = False
            order.append(going)
            width -= count
        losses.append(lost)
    gone = torch.cat(order) if order else torch.zeros(0, dtype=torch.int64)
    between = np.interp(widths, measured[::-1], losses[::-1])
    return Elimination(gone, tuple(widths), tuple(between.tolist()))


def _apart(widths: Sequence[int], most: int) -> list[int]:
    """Return the first width, the last one, and such between that are far enough apart."""
    step = (widths[0] - widths[-1]) / most
    found = [widths[0]]
    for width in widths[1:]:
        if found[-1] - width >= step or width == widths[-1]:
            found.append(width)
    return found
