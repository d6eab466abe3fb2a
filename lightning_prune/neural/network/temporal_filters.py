"""Filters over time alone as matrix products."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_prune.neural.network.frames import like_autocast


class TemporalFilters(nn.Conv3d):
    """Filter a video of one channel over time; no padding, no bias.

    On a CPU each time of the output is one matrix product: torch's own 3-D kernels are many times
    slower at one channel.

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
    """One product for each time of the output: no zeros are multiplied, nor counted as MACs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        frames, filters = x[:, 0].flatten(2), weight.flatten(1)
        ctx.save_for_backward(frames, weight)
        every = filters.expand(frames.shape[0], -1, -1)
        made = torch.stack([torch.bmm(every, part) for part in _parts(frames, weight)], 2)
        out: Tensor = made.unflatten(3, x.shape[3:])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        frames, weight = ctx.saved_tensors
        filters, made = weight.flatten(1), grad.flatten(3).unbind(2)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            whole = torch.zeros_like(frames)
            for part, each in zip(_parts(whole, weight), made, strict=True):
                part += filters.t() @ each
            grad_x = whole.unflatten(2, grad.shape[3:]).unsqueeze(1)
        if ctx.needs_input_grad[1]:
            found = torch.zeros_like(filters)
            for part, each in zip(_parts(frames, weight), made, strict=True):
                found += torch.bmm(each, part.transpose(1, 2)).sum(0)
            grad_weight = found.view_as(weight)
        return grad_x, grad_weight


def _parts(frames: Tensor, weight: Tensor) -> list[Tensor]:
    """Return for each time of the output the frames (B, taps, H * W) that it is made of."""
    taps = weight.shape[2]
    return [frames[:, first : first + taps] for first in range(frames.shape[1] - taps + 1)]
