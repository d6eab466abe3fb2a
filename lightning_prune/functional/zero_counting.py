"""Norms of the channels that are left, with the statistics of all: cut channels count as zeros."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def layer_norm_of_kept(
    x: Tensor,
    counted: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Compute a layer norm over the last axis as if zeros filled it up to ``counted`` values.

    .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \gamma + \beta, \quad
        \mu = \frac{1}{n} \sum x, \quad
        \sigma^2 = \frac{1}{n} \Big(\sum (x - \mu)^2 + (n - k) \mu^2\Big)

    over the k values that are there, of n = ``counted``. What is computed is torch's fused norm of
    the k values, and a shift and a factor for each position, in which nothing cancels: with
    r = k/n, m the mean of the k values, :math:`\rho = (v + \varepsilon/r)^{-1/2}` of their
    variance v, and :math:`t = m \rho`,

    .. math:: y = \big((x - m) \rho + (1 - r) t\big) \, a \, \gamma + \beta, \quad
        a = \big(r \, (1 + (1 - r) \, t^2)\big)^{-1/2}

    In half precision it computes in float32, as torch does.

    Args:
        x: (..., k).
        counted: n, at least k.
        weight: (k,) scale, or None.
        bias: (k,) shift, or None.
        eps: Added to the variance.

    Returns:
        (..., k), float32 where x is in half precision, else in x's precision.

    Source: J. L. Ba, J. R. Kiros, G. E. Hinton, 2016, Layer Normalization, arXiv 1607.06450.

    >>> wide = F.layer_norm(torch.tensor([1.0, 3.0, 0.0, 0.0]), (4,))
    >>> kept = layer_norm_of_kept(torch.tensor([1.0, 3.0]), 4)
    >>> [round(value, 4) for value in kept.tolist()], bool((wide[:2] - kept).abs().max() < 1e-6)
    ([0.0, 1.633], True)
    """
    x = x.float() if x.dtype in _HALF else x
    weight, bias = _as(weight, x), _as(bias, x)
    if torch.compiler.is_compiling() and torch.is_grad_enabled():
        # Compilers differentiate and fuse the definition themselves.
        return _affine(_standardized(x, counted, eps), weight, bias)
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, weight, bias)
    ):
        y: Tensor = _LayerNormOfKept.apply(x, weight, bias, counted, eps)[0]
        return y
    return _fused(x, weight, bias, counted, eps)[0]


def rms_norm_of_kept(
    x: Tensor, counted: int, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    r"""Compute an RMS norm over the last axis as if zeros filled it up to ``counted`` values.

    .. math:: y = \frac{x}{\sqrt{\frac{1}{n} \sum x^2 + \varepsilon}} \gamma
        = \frac{x}{\sqrt{\frac{1}{k} \sum x^2 + \frac{n}{k} \varepsilon}} \sqrt{\frac{n}{k}} \gamma

    torch's norm of the k values that are there, with another eps and the scale times a factor.

    Args:
        x: (..., k).
        counted: n, at least k.
        weight: (k,) scale, or None.
        eps: Added to the mean square; None: the smallest step at 1 of the precision it computes in.

    Returns:
        (..., k), float32 where x is in half precision, else in x's precision.

    Source: B. Zhang, R. Sennrich, 2019, Root Mean Square Layer Normalization, arXiv 1910.07467.

    >>> rms_norm_of_kept(torch.tensor([1.0, 1.0]), 4, eps=0.0).tolist()
    [1.4142135381698608, 1.4142135381698608]
    """
    kept = x.shape[-1]
    x = x.float() if x.dtype in _HALF else x
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    factor = (counted / kept) ** 0.5
    scale = x.new_full((kept,), factor) if weight is None else weight.to(x.dtype) * factor
    return F.rms_norm(x, (kept,), scale, eps * counted / kept)


def deviation_norm_of_kept(
    x: Tensor, counted: int, weight: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    r"""Divide by the standard deviation over the last axis, zeros filling it up to ``counted``.

    .. math:: y = \frac{x \, \gamma}{\sqrt{\sigma^2 + \varepsilon}}, \quad
        \sigma^2 = \frac{1}{n - 1} \Big(\sum (x - \mu)^2 + (n - k) \mu^2\Big), \quad
        \mu = \frac{1}{n} \sum x

    Args:
        x: (..., k).
        counted: n, at least k and 2.
        weight: (k,) scale, or None.
        eps: Added to the variance.

    Returns:
        (..., k), float32 where x is in half precision, else in x's precision.

    >>> deviation_norm_of_kept(torch.tensor([1.0, 3.0]), 4, eps=0.0).tolist()
    [0.7071067690849304, 2.1213202476501465]
    """
    x = x.float() if x.dtype in _HALF else x
    _, variance = _statistics(x, counted, correction=1)
    y = x * torch.rsqrt(variance + eps)
    return y if weight is None else y * weight.to(y.dtype)


def response_norm_of_kept(
    x: Tensor,
    counted: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    r"""Compute a global response norm as if channels of zeros filled the last axis up.

    .. math:: y_c = x_c + \gamma_c \, x_c \frac{g_c}{\frac{1}{n} \sum g + \varepsilon} + \beta_c

    with g the Euclidean norm of each channel over space, and n = ``counted``.

    Args:
        x: (B, ..., k), channels last.
        counted: n, at least k.
        weight: (k,) scale, or None.
        bias: (k,) shift, or None.
        eps: Added to the mean response.

    Returns:
        (B, ..., k), float32 where x is in half precision, else in x's precision.

    Source: S. Woo et al., 2023, ConvNeXt V2, arXiv 2301.00808.

    >>> response_norm_of_kept(torch.tensor([[[3.0, 0.0], [4.0, 0.0]]]), 4, eps=0.0).tolist()
    [[[15.0, 0.0], [20.0, 0.0]]]
    """
    x = x.float() if x.dtype in _HALF else x
    response: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim - 1)), keepdim=True)
    scale = response / (response.sum(-1, keepdim=True) / counted + eps)
    y: Tensor = x + x * (scale if weight is None else scale * weight.to(x.dtype))
    return y if bias is None else y + bias.to(x.dtype)


def group_norm_of_kept(
    x: Tensor,
    group: Tensor | int,
    groups: int,
    counted: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Compute a group norm as if zeros filled each group up to ``counted`` channels.

    .. math:: y_c = \frac{x_c - \mu_g}{\sqrt{\sigma_g^2 + \varepsilon}} \gamma_c + \beta_c, \quad
        \mu_g = \frac{1}{n} \sum x, \quad
        \sigma_g^2 = \frac{1}{n} \Big(\sum (x - \mu_g)^2 + z \mu_g^2\Big)

    over the n values that group g has when dense, z of which belong to channels that were cut.

    Args:
        x: (B, C, ...), the C channels that are left.
        group: (C,) int64, the group of each channel; an int: the channels of every group.
        groups: Number of groups.
        counted: Channels of a group when dense.
        weight: (C,) scale, or None.
        bias: (C,) shift, or None.
        eps: Added to the variance.

    Returns:
        (B, C, ...), float32 where x is in half precision, else in x's precision.

    Source: Y. Wu, K. He, 2018, Group Normalization, arXiv 1803.08494.

    >>> x = torch.tensor([1.0, 3.0, 5.0]).view(1, 3, 1)
    >>> y = group_norm_of_kept(x, torch.tensor([0, 0, 1]), 2, 4, eps=0.0)
    >>> [round(value, 4) for value in y.flatten().tolist()]
    [0.0, 1.633, 1.7321]
    """
    values = x.float() if x.dtype in _HALF else x
    values = values.flatten(2) if x.ndim > 2 else values.unsqueeze(2)
    pixels = values.shape[2]
    weight, bias = (None if v is None else v.to(values.dtype).unsqueeze(1) for v in (weight, bias))
    if isinstance(group, int):
        rows = values.reshape(values.shape[0], groups, group * pixels)
        y = layer_norm_of_kept(rows, counted * pixels, eps=eps).view_as(values)
        return _affine(y, weight, bias).view_as(x)
    centred, scale = _uneven(values, group, groups, counted, eps)
    # The product of scales is small: one for each channel of a sample.
    return _affine(centred, scale if weight is None else scale * weight, bias).view_as(x)


def _uneven(
    values: Tensor, group: Tensor, groups: int, counted: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Return values less the means of their groups, and their scales (B, C, 1)."""

    def of_groups(sums: Tensor) -> Tensor:
        """Sum (B, C) over the channels of each group: (B, groups)."""
        return sums.new_zeros(sums.shape[0], groups).index_add(1, group, sums)

    count = counted * values.shape[2]
    mean = of_groups(values.sum(2)) / count
    centred = values - mean[:, group, None]
    zeros = values.shape[2] * (counted - of_groups(values.new_ones(1, len(group))))
    variance = (of_groups(centred.square().sum(2)) + zeros * mean.square()) / count
    return centred, torch.rsqrt(variance + eps)[:, group].unsqueeze(2)


def _as(values: Tensor | None, x: Tensor) -> Tensor | None:
    return None if values is None else values.to(x.dtype)


def _statistics(x: Tensor, counted: int, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Return x less its mean, and the variance (..., 1)."""
    mean = x.sum(-1, keepdim=True) / counted
    centred = x - mean
    squares = centred.square().sum(-1, keepdim=True) + (counted - x.shape[-1]) * mean.square()
    return centred, squares / (counted - correction)


def _standardized(x: Tensor, counted: int, eps: float) -> Tensor:
    centred, variance = _statistics(x, counted)
    return centred * torch.rsqrt(variance + eps)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None and bias is not None:
        return torch.addcmul(bias, y, weight)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _fused(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, counted: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the norm, and mean and reciprocal deviation of each position (..., 1)."""
    ratio = x.shape[-1] / counted
    y, mean, rstd = torch.native_layer_norm(x, (x.shape[-1],), None, None, eps / ratio)
    t = mean * rstd
    factor = torch.rsqrt(ratio * (1 + (1 - ratio) * t.square()))
    # In place: y is nobody else's, and new memory costs more than the arithmetic.
    y.mul_(factor).add_((1 - ratio) * t * factor)
    if weight is not None:
        y.mul_(weight)
    if bias is not None:
        y.add_(bias)
    return y, mean * ratio, rstd * factor


class _LayerNormOfKept(torch.autograd.Function):
    r"""``layer_norm_of_kept`` with torch's own backward kernel.

    That kernel takes mean and reciprocal deviation as given, and divides two sums by k where n is
    meant: with its dx', the gradient is :math:`r \, dx' + (1 - r) \, dy \, \gamma \, \rho`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, counted: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _fused(x, weight, bias, counted, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.counted, ctx.eps = inputs
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        ctx.save_for_backward(x, weight, bias, mean, rstd)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_statistics: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_with_graph(ctx, dy, x, weight, bias), None, None)
        wanted: Sequence[bool] = ctx.needs_input_grad[:3]
        dx, dw, db = torch.ops.aten.native_layer_norm_backward(
            dy, x, (x.shape[-1],), mean, rstd, weight, bias, list(wanted)
        )
        if dx is not None:
            ratio = x.shape[-1] / ctx.counted
            scaled = dy * (1 - ratio) if weight is None else dy * (weight * (1 - ratio))
            dx = dx.mul_(ratio).addcmul_(scaled, rstd)
        return dx, dw, db, None, None


def _with_graph(
    ctx: Any, dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None
) -> list[Tensor | None]:
    """Return gradients that have gradients themselves: those of the definition."""
    y = _affine(_standardized(x, ctx.counted, ctx.eps), weight, bias)
    inputs = (x, weight, bias)
    pairs = zip(inputs, ctx.needs_input_grad[:3], strict=True)
    wanted = [t for t, need in pairs if need and t is not None]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return [next(found) if need else None for need in ctx.needs_input_grad[:3]]
