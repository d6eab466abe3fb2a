"""Depthwise 3-D convolution as a sum of 2-D ones."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_prune.neural.network.frames import (
    like_autocast,
    stack_frames,
    unstack_frames,
)

Triple = tuple[int, int, int]


class DepthwiseConv3d(nn.Conv3d):
    """Filter each channel by itself; no padding, no bias.

    On a CPU each tap over time is a 2-D convolution of all frames, and the gradient of the input a
    convolution with the turned kernel: torch's own 3-D kernels are many times slower backwards.

    Args:
        channels: Channels read and made.
        kernel_size: Taps over time, rows and columns.
        stride: Steps over time, rows and columns.
        dilation: Distance of the taps.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Triple,
        stride: Triple = (1, 1, 1),
        dilation: Triple = (1, 1, 1),
    ):
        super().__init__(
            channels, channels, kernel_size, stride, dilation=dilation, groups=channels, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C, T', H', W')."""
        if input.device.type != "cpu":
            return super().forward(input)
        x, weight = like_autocast(input, self.weight)
        out: Tensor = _Depthwise.apply(x, weight, self.stride, self.dilation)
        return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Triple, dilation: Triple) -> Tensor:
        frames = stack_frames(x)
        batch, taps = x.shape[0], weight.shape[2]
        made = (x.shape[2] - dilation[0] * (taps - 1) - 1) // stride[0] + 1
        ctx.save_for_backward(frames, weight)
        ctx.batch, ctx.made, ctx.stride, ctx.dilation = batch, made, stride, dilation

        def at(tap: int) -> Tensor:
            return F.conv2d(
                _read(frames, batch, made, tap, stride[0], dilation[0]),
                weight[:, :, tap],
                stride=stride[1:],
                dilation=dilation[1:],
                groups=len(weight),
            )

        out = at(0)
        for tap in range(1, taps):
            out.add_(at(tap))
        return unstack_frames(out, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        frames, weight = ctx.saved_tensors
        stride, dilation = ctx.stride, ctx.dilation
        of_x, of_weight = ctx.needs_input_grad[:2]
        grad = stack_frames(grad)
        grad_frames = torch.zeros_like(frames) if of_x else None
        grad_weights = []
        for tap in range(weight.shape[2]):
            place = (ctx.batch, ctx.made, tap, stride[0], dilation[0])
            read, kernel = _read(frames, *place), weight[:, :, tap].contiguous()
            turn = of_x and stride[1:] == (1, 1)
            part, grad_kernel, _ = torch.ops.aten.convolution_backward(
                grad, read, kernel, None, stride[1:], (0, 0), dilation[1:], False, (0, 0),
                len(weight), (of_x and not turn, of_weight, False),
            )  # fmt: skip
            if turn:
                part = F.conv2d(
                    grad,
                    kernel.flip(2, 3),
                    padding=[
                        d * (k - 1) for d, k in zip(dilation[1:], kernel.shape[2:], strict=True)
                    ],
                    dilation=dilation[1:],
                    groups=len(weight),
                )
            if grad_frames is not None:
                _frames_read(grad_frames, *place).add_(part.unflatten(0, (-1, ctx.batch)))
            grad_weights.append(grad_kernel)
        return (
            None if grad_frames is None else unstack_frames(grad_frames, ctx.batch),
            torch.stack(grad_weights, dim=2) if of_weight else None,
            None,
            None,
        )


def _frames_read(
    frames: Tensor, batch: int, made: int, tap: int, stride: int, dilation: int
) -> Tensor:
    """Return a view of the frames (T', B, C, H, W) that a tap reads."""
    first = tap * dilation
    video: Tensor = frames.unflatten(0, (-1, batch))
    return video[first : first + stride * (made - 1) + 1 : stride]


def _read(frames: Tensor, batch: int, made: int, tap: int, stride: int, dilation: int) -> Tensor:
    """Return the frames that a tap reads, one after another, channels last."""
    read: Tensor = _frames_read(frames, batch, made, tap, stride, dilation).flatten(0, 1)
    return read.contiguous(memory_format=torch.channels_last)
