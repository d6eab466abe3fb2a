"""The sum of two videos of nearly the same size."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cropped_sum(a: Tensor, b: Tensor) -> Tensor:
    """Add two videos (B, C, T, H, W), cut to the smaller sizes.

    Of the longer the last frames stay, of the larger the middle of each frame; of an odd number of
    pixels too many, one more goes below and on the right.

    >>> cropped_sum(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1), torch.ones(1, 1, 2, 1, 1))
    tensor([[[[[3.]],
              [[4.]]]]])
    """
    if a.shape == b.shape:
        return a + b
    out: Tensor = _CroppedSum.apply(a, b)
    return out


class _CroppedSum(torch.autograd.Function):
    """Gives gradients in the layout of ``stack_frames``; torch's slices do so in another."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        time, height, width = map(min, zip(a.shape[2:], b.shape[2:], strict=True))
        ctx.like = [(x.shape, x.dtype) for x in (a, b)]
        return _middle(a, time, height, width) + _middle(b, time, height, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor | None] = []
        for needed, (shape, dtype) in zip(ctx.needs_input_grad, ctx.like, strict=True):
            if not needed or shape == grad.shape:
                grads.append(grad.to(dtype) if needed else None)
                continue
            batch, channels, *sizes = shape
            memory = grad.new_zeros(sizes[0], batch, *sizes[1:], channels, dtype=dtype)
            whole = memory.permute(1, 4, 0, 2, 3)
            _middle(whole, *grad.shape[2:]).copy_(grad)
            grads.append(whole)
        return tuple(grads)


def _middle(x: Tensor, time: int, height: int, width: int) -> Tensor:
    """Return the last frames, and the middle of each."""
    top, left = (x.shape[3] - height) // 2, (x.shape[4] - width) // 2
    return x[:, :, x.shape[2] - time :, top : top + height, left : left + width]
