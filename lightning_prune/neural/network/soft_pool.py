"""Blurring and soft pooling of the frames of a video."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def blur(x: Tensor) -> Tensor:
    r"""Blur every frame with the 3x3 binomial filter, zeros beyond the border.

    .. math:: \frac{1}{16} \begin{pmatrix} 1 & 2 & 1 \\ 2 & 4 & 2 \\ 1 & 2 & 1 \end{pmatrix}

    Args:
        x: (B, C, T, H, W).

    Returns:
        The same shape.

    >>> blur(torch.ones(1, 1, 1, 3, 3))[0, 0, 0]
    tensor([[0.5625, 0.7500, 0.5625],
            [0.7500, 1.0000, 0.7500],
            [0.5625, 0.7500, 0.5625]])
    """
    blurred: Tensor = _Blur.apply(x)
    return blurred


def soft_pool(x: Tensor, size: int = 2) -> Tensor:
    r"""Average windows of every frame with weights that grow with the values.

    .. math:: y = \frac{\sum_i e^{x_i} x_i}{\sum_i e^{x_i}}

    over the pixels i of a window; rows and columns that fill no window are left out.

    Args:
        x: (B, C, T, H, W).
        size: Side of the windows in pixels, and their distance.

    Returns:
        (B, C, T, H // size, W // size).

    Raises:
        ValueError: a frame is smaller than a window.

    Source: A. Stergiou, R. Poppe, G. Kalliatakis, 2021, Refining activation downsampling with
    SoftPool, arXiv 2101.00440.

    >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0]]).view(1, 1, 1, 2, 2)
    >>> round(soft_pool(x).item(), 4)  # e / (3 + e)
    0.4754
    """
    if min(x.shape[-2:]) < size:
        raise ValueError(
            f"frames of {x.shape[-2]} x {x.shape[-1]} pixels are smaller than a window of "
            f"{size} x {size}: use larger frames or fewer pooling stages"
        )
    pooled: Tensor = _SoftPool.apply(x, size)
    return pooled


class _Blur(torch.autograd.Function):
    """The filter is symmetric, so that the gradient is blurred in the same way.

    Sums of shifted frames: a depthwise convolution is three times faster, but MACs would be counted
    that belong to no layer, and that a cut of channels changes all the same.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _smooth(_smooth(x, 3), 4)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Blur.forward(ctx, grad)


def _smooth(x: Tensor, dim: int) -> Tensor:
    """Return a quarter of both neighbours and half of each value."""
    out, others = x * 0.5, x.shape[dim] - 1
    out.narrow(dim, 1, others).add_(x.narrow(dim, 0, others), alpha=0.25)
    out.narrow(dim, 0, others).add_(x.narrow(dim, 1, others), alpha=0.25)
    return out


class _SoftPool(torch.autograd.Function):
    """Saves the input, the result, and the logarithm of each window's sum of weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        pixels = _pixels(x, size)
        largest = pixels[0]
        for pixel in pixels[1:]:
            largest = torch.maximum(largest, pixel)
        total, out = torch.zeros_like(largest), torch.zeros_like(largest)
        for pixel in pixels:
            weight = (pixel - largest).exp_()
            total += weight
            out.addcmul_(weight, pixel)
        out /= total
        ctx.save_for_backward(x, out, total.log_().add_(largest))
        ctx.size = size
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, out, logarithm = ctx.saved_tensors
        size = ctx.size
        whole = x.shape[-2] % size == 0 and x.shape[-1] % size == 0
        grad_x = torch.empty_like(x) if whole else torch.zeros_like(x)
        for pixel, place in zip(_pixels(x, size), _pixels(grad_x, size), strict=True):
            weight = (pixel - logarithm).exp_()
            place.copy_((pixel - out).add_(1).mul_(weight).mul_(grad))
        return grad_x, None


def _pixels(x: Tensor, size: int) -> list[Tensor]:
    """Return a view of each pixel of all windows."""
    rows, columns = x.shape[-2] // size * size, x.shape[-1] // size * size
    return [x[..., i:rows:size, j:columns:size] for i in range(size) for j in range(size)]
