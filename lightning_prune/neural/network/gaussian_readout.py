"""The readout of the cells of one session."""

from typing import Annotated

import torch
from torch import Tensor, nn

from lightning_prune.annotations import Above, AtLeast
from lightning_prune.arguments import Count
from lightning_prune.validation import validated

MIN_STD = 1e-3


class GaussianReadout(nn.Module):
    r"""Read each cell from the features around a point of its own.

    .. math:: y_n = \sum_{ij} m_{nij} \sum_c w_{nc} x_{cij} + b_n, \qquad
        m_{nij} \propto \exp\left(-\frac{u^2}{2 s_{n0}^2} - \frac{v^2}{2 s_{n1}^2}\right)

    with (u, v) the position (row, column) relative to the cell's ``mean``, turned by ``theta``;
    positions are in pixels of the features, from the middle of the frame, and each mask m sums to
    1. Standard deviations below 1e-3 count as 1e-3.

    Args:
        in_channels: Channels of the features.
        cells: Number of cells N.
        bias: Learn a constant for each cell.
        initial_std: Standard deviations at the start, in pixels of the features.
        initial_mean_scale: Standard deviation of the means at the start, likewise.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        features: 1x1 convolution to one map per cell.
        mean: (N, 2) row and column; to be excluded from weight decay.
        std: (N, 2).
        theta: (N,) radians.
        bias: (N,) or None.
    """

    @validated
    def __init__(
        self,
        in_channels: int,
        cells: Count,
        bias: bool = True,
        initial_std: Annotated[float, Above(0)] = 5.0,
        initial_mean_scale: Annotated[float, AtLeast(0)] = 0.1,
    ) -> None:
        super().__init__()
        self.features = nn.Conv2d(in_channels, cells, 1, bias=False)
        self.mean = nn.Parameter(initial_mean_scale * torch.randn(cells, 2))
        self.std = nn.Parameter(torch.full((cells, 2), float(initial_std)))
        self.theta = nn.Parameter(torch.zeros(cells))
        self.bias = nn.Parameter(torch.zeros(cells)) if bias else None

    def mask(self, height: int, width: int) -> Tensor:
        """Return each cell's weights over the pixels of a frame, (N, height, width).

        A cell whose Gaussian is so narrow that it misses every pixel has a mask of zeros.
        """
        rows = torch.arange(height, device=self.mean.device) - (height - 1) / 2
        columns = torch.arange(width, device=self.mean.device) - (width - 1) / 2
        down = (rows - self.mean[:, :1]).unsqueeze(2)
        right = (columns - self.mean[:, 1:]).unsqueeze(1)
        cosine, sine = self.theta.cos()[:, None, None], self.theta.sin()[:, None, None]
        std = self.std.clamp_min(MIN_STD)[:, :, None, None]
        u = (cosine * down + sine * right) / std[:, 0]
        v = (cosine * right - sine * down) / std[:, 1]
        weights = torch.exp(-(u.square() + v.square()) / 2)
        # Smallest normal number: it changes no sum but that of a mask that missed every pixel.
        total = weights.sum((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        return weights / total

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, in_channels, H, W) or (B, in_channels, T, H, W) to (B, N).

        Of several frames the last is read.
        """
        frame = x[:, :, -1] if x.dim() == 5 else x
        maps = self.features(frame)
        out = torch.einsum("bnij,nij->bn", maps, self.mask(*maps.shape[2:]).to(maps.dtype))
        return out if self.bias is None else out + self.bias
