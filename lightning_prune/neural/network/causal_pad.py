"""Padding of a video by repetition: the past alone, and all borders of its frames."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def causal_pad(x: Tensor, past: int, rows: int, columns: int) -> Tensor:
    """Repeat the first frame into the past, and the borders of every frame outwards.

    Args:
        x: (B, C, T, H, W).
        past: Number of frames put before the first.
        rows: Number of rows put above the first and below the last.
        columns: Number of columns put on either side.

    Returns:
        (B, C, T + past, H + 2 * rows, W + 2 * columns).

    >>> causal_pad(torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1), 1, 0, 1)[0, 0, :, 0]
    tensor([[1., 1., 1.],
            [1., 1., 1.],
            [2., 2., 2.]])
    """
    if not (past or rows or columns):
        return x
    if x.device.type != "cpu":
        return F.pad(x, (columns, columns, rows, rows, past, 0), mode="replicate")
    padded: Tensor = _Pad.apply(x, past, rows, columns)
    return padded


class _Pad(torch.autograd.Function):
    """Fills the layout of ``stack_frames``; the borders are copied from what is there already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, past: int, rows: int, columns: int) -> Tensor:
        ctx.sizes = past, rows, columns
        batch, channels, time, height, width = x.shape
        memory = x.new_empty(time + past, batch, height + 2 * rows, width + 2 * columns, channels)
        out = memory.permute(1, 4, 0, 2, 3)
        down, right = slice(rows, rows + height), slice(columns, columns + width)
        out[:, :, past:, down, right] = x
        out[:, :, past:, down, :columns] = x[..., :1]
        out[:, :, past:, down, columns + width :] = x[..., -1:]
        out[:, :, past:, :rows] = out[:, :, past:, rows : rows + 1]
        out[:, :, past:, rows + height :] = out[:, :, past:, rows + height - 1 : rows + height]
        out[:, :, :past] = out[:, :, past : past + 1]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        past, rows, columns = ctx.sizes
        height, width = grad.shape[3] - 2 * rows, grad.shape[4] - 2 * columns
        if past:
            first = grad[:, :, : past + 1].sum(2, keepdim=True)
            grad = torch.cat((first, grad[:, :, past + 1 :]), dim=2)
        tall = grad[:, :, :, rows : rows + height].clone()
        tall[:, :, :, 0] += grad[:, :, :, :rows].sum(3)
        tall[:, :, :, -1] += grad[:, :, :, rows + height :].sum(3)
        out = tall[..., columns : columns + width].clone()
        out[..., 0] += tall[..., :columns].sum(4)
        out[..., -1] += tall[..., columns + width :].sum(4)
        return out, None, None, None
