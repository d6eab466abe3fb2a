"""A 1x1x1 convolution as one matrix product."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_prune.neural.network.frames import (
    like_autocast,
    stack_frames,
    unstack_frames,
)

Triple = tuple[int, int, int]


class PointwiseConv3d(nn.Conv3d):
    """Mix the channels at each position; no bias.

    On a CPU it is one matrix product over all positions of all frames, in the layout of
    ``stack_frames``.

    Args:
        in_channels: Channels read.
        out_channels: Channels made.
        stride: Steps over time, rows and columns.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Triple = (1, 1, 1)):
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, T, H, W) to (B, out_channels, T', H', W')."""
        if input.device.type != "cpu":
            return super().forward(input)
        x, weight = like_autocast(input, self.weight)
        out: Tensor = _Pointwise.apply(x, weight, self.stride)
        return out


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Triple) -> Tensor:
        read = _every(x, stride)
        rows = _rows(read)
        ctx.save_for_backward(rows, weight)
        ctx.shape, ctx.stride, ctx.sizes = x.shape, stride, (x.shape[0], *read.shape[3:])
        return _video(rows @ weight.flatten(1).t(), ctx.sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        grad = _rows(grad)
        of_x, of_weight = ctx.needs_input_grad[:2]
        grad_weight = (grad.t() @ rows).view_as(weight) if of_weight else None
        if not of_x:
            return None, grad_weight, None
        grad_x = _video(grad @ weight.flatten(1), ctx.sizes)
        if ctx.stride != (1, 1, 1):
            batch, channels, time, height, width = ctx.shape
            memory = grad.new_zeros(time, batch, height, width, channels)
            whole = memory.permute(1, 4, 0, 2, 3)
            _every(whole, ctx.stride).copy_(grad_x)
            grad_x = whole
        return grad_x, grad_weight, None


def _every(x: Tensor, stride: Triple) -> Tensor:
    """Return a view of every n-th position."""
    time, rows, columns = stride
    return x[:, :, ::time, ::rows, ::columns]


def _rows(x: Tensor) -> Tensor:
    """Return the positions of a video as rows of channels."""
    return stack_frames(x).permute(0, 2, 3, 1).flatten(0, 2)


def _video(rows: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    batch, height, width = sizes
    frames = rows.unflatten(0, (-1, height, width)).permute(0, 3, 1, 2)
    return unstack_frames(frames, batch)
