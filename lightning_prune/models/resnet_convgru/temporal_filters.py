"""Filters over time alone as one matrix product."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_prune.models.resnet_convgru.frames import like_autocast


class TemporalFilters(nn.Conv3d):
    """Filter a video of one channel over time; no padding, no bias.

    On a CPU all filters at all times are the rows of one matrix, which is multiplied with the
    frames: torch's own 3-D kernels are many times slower at one channel.

    Args:
        filters: Channels made.
        taps: Length in frames.
    """

    def __init__(self, filters: int, taps: int):
        super().__init__(1, filters, (taps, 1, 1), bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, 1, T, H, W) to (B, filters, T - taps + 1, H, W)."""
        if input.device.type != "cpu":
            return super().forward(input)
        x, weight = like_autocast(input, self.weight)
        out: Tensor = _Filters.apply(x, weight)
        return out


class _Filters(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        frames = x[:, 0].flatten(2)
        ctx.save_for_backward(frames, weight)
        made = _rows(weight, frames.shape[1]) @ frames
        out: Tensor = made.unflatten(1, (-1, len(weight))).unflatten(3, x.shape[3:])
        return out.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        frames, weight = ctx.saved_tensors
        count, taps = len(weight), weight.shape[2]
        made = grad.transpose(1, 2).flatten(3).flatten(1, 2)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _rows(weight, frames.shape[1]).t() @ made
            grad_x = grad_x.unflatten(2, grad.shape[3:]).unsqueeze(1)
        if ctx.needs_input_grad[1]:
            rows = torch.bmm(made, frames.transpose(1, 2)).sum(0).unflatten(0, (-1, count))
            shifted = [row[:, time : time + taps] for time, row in enumerate(rows)]
            grad_weight = torch.stack(shifted).sum(0).view_as(weight)
        return grad_x, grad_weight


def _rows(weight: Tensor, frames: int) -> Tensor:
    """Return ((T - taps + 1) * filters, T): the filters, later by a frame from block to block."""
    count, taps = len(weight), weight.shape[2]
    rows = weight.new_zeros(frames - taps + 1, count, frames)
    for time, row in enumerate(rows):
        row[:, time : time + taps] = weight.view(count, taps)
    return rows.flatten(0, 1)
