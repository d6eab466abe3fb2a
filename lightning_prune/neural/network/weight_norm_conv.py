"""A 3-D convolution that learns the length of its filters apart from their direction."""

from typing import Any

import torch
from torch import Tensor, nn


class WeightNormConv3d(nn.Conv3d):
    r"""Convolution whose filters are :math:`g_c v_c / \|v_c\|`.

    ``weight`` holds the directions v, ``gain`` (out_channels,) the lengths g. A filter whose
    direction is zero is zero, and no gradient reaches it. Filters that lose inputs to pruning keep
    their lengths: what they read of the others grows.

    Args:
        *arguments: As of ``torch.nn.Conv3d``.
        **named: The same.

    Source: T. Salimans, D. P. Kingma, 2016, Weight Normalization, arXiv 1602.07868.

    >>> conv = WeightNormConv3d(1, 1, 1, bias=False)
    >>> conv.weight.data.fill_(-3.0), conv.gain.data.fill_(2.0)
    (tensor([[[[[-3.]]]]]), tensor([2.]))
    >>> conv(torch.ones(1, 1, 1, 1, 1)).item()
    -2.0
    """

    output_vectors = ("gain",)

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.gain = nn.Parameter(torch.empty_like(self.weight[:, 0, 0, 0, 0]))
        self.reset_gain()

    @torch.no_grad()
    def reset_gain(self) -> None:
        """Set every gain to the length of its direction, so that the filters equal ``weight``."""
        self.gain.copy_(self._lengths())

    def filters(self) -> Tensor:
        """Return the filters that the convolution applies, in the shape of ``weight``."""
        length = self._lengths()
        alive = length > 0
        # Both: a quotient by 0 gives NaN gradients even where the other branch is taken.
        scale = torch.where(alive, self.gain / torch.where(alive, length, 1.0), 0.0)
        return self.weight * scale.view(-1, 1, 1, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, T, H, W) to (B, out_channels, T', H', W')."""
        out: Tensor = self._conv_forward(input, self.filters(), self.bias)
        return out

    def _lengths(self) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(self.weight, dim=(1, 2, 3, 4))
        return lengths
