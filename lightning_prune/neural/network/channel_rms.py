"""Root-mean-square normalisation over channels, with a short backward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def normalize_channels(x: Tensor, gamma: Tensor, beta: Tensor | None, eps: float) -> Tensor:
    r"""Divide every position by the root mean square of its channels, scale and shift.

    Computed in float32 (or float64 for such inputs), returned in the type of the input.

    Args:
        x: (B, C, ...).
        gamma: (C,) scale.
        beta: (C,) shift, or None.
        eps: Added to the mean square.

    >>> normalize_channels(torch.tensor([[3.0, 4.0]]), torch.ones(2), None, 0.0)
    tensor([[0.8485, 1.1314]])
    """
    out: Tensor = _Normalize.apply(x, gamma, beta, eps)
    return out


class _Normalize(torch.autograd.Function):
    """Saves the normalised values and one number for each position."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor | None, eps: float) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        scale = length.square_().div_(x.shape[1]).add_(eps).rsqrt_()
        normed: Tensor = wide * scale
        ctx.save_for_backward(normed, scale, gamma)
        shape = (1, -1, *[1] * (x.dim() - 2))
        if beta is None:
            out: Tensor = normed * gamma.view(shape)
        else:
            out = torch.addcmul(beta.view(shape).to(normed.dtype), normed, gamma.view(shape))
        return out.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        normed, scale, gamma = ctx.saved_tensors
        of_x, of_gamma, of_beta = ctx.needs_input_grad[:3]
        wide = grad.to(normed.dtype)
        others = [0, *range(2, grad.dim())]
        shape = (1, -1, *[1] * (grad.dim() - 2))
        product = wide * normed
        grad_gamma = product.sum(others).to(gamma.dtype) if of_gamma else None
        grad_beta = wide.sum(others).to(gamma.dtype) if of_beta else None
        if not of_x:
            return None, grad_gamma, grad_beta, None
        scaled = gamma.view(shape).to(normed.dtype)
        mean = product.mul_(scaled).mean(1, keepdim=True)
        grad_x = (wide * scaled).addcmul_(normed, mean, value=-1).mul_(scale)
        return grad_x.to(grad.dtype), grad_gamma, grad_beta, None
