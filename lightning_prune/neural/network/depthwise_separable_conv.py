"""A 3-D convolution in two steps: over space and time, then over channels."""

from torch import Tensor, nn

from lightning_prune.neural.network.depthwise_conv import DepthwiseConv3d
from lightning_prune.neural.network.pointwise_conv import PointwiseConv3d


class DepthwiseSeparableConv3d(nn.Module):
    """Filter each channel by itself, then mix the channels at each position; no biases.

    It has ``in_channels * (k + out_channels)`` weights for a kernel of k taps, where an ordinary
    convolution has ``in_channels * k * out_channels``.

    Args:
        in_channels: Channels read.
        out_channels: Channels made.
        kernel_size: Taps over time, rows and columns.
        stride: Steps over time, rows and columns.
        dilation: Distance of the taps.

    Source: F. Chollet, 2017, Xception: Deep Learning with Depthwise Separable Convolutions,
    arXiv 1610.02357.

    >>> conv = DepthwiseSeparableConv3d(64, 128, (3, 5, 5))
    >>> sum(p.numel() for p in conv.parameters()), 64 * 128 * 75
    (12992, 614400)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        dilation: tuple[int, int, int] = (1, 1, 1),
    ):
        super().__init__()
        self.depthwise = DepthwiseConv3d(in_channels, kernel_size, stride, dilation)
        self.pointwise = PointwiseConv3d(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T, H, W) to (B, out_channels, T', H', W')."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out
