"""Building blocks of YOLOv8: convolution, residual bottleneck, CSP block and spatial pyramid."""

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3, momentum 0.03) and SiLU.

    Args:
        in_channels: Channels read.
        out_channels: Channels made.
        kernel: Side of the square kernel in pixels, odd; padded by ``kernel // 2``.
        stride: Step in pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        # In place on the norm's output: the raw convolution output that hooks read stays intact.
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, added to their input where ``add``.

    Args:
        channels: Channels read and made.
        add: Add the input to the output.
    """

    def __init__(self, channels: int, add: bool = True):
        super().__init__()
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = Conv(channels, channels, 3)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return x + out if self.add else out


class CSP(nn.Module):
    """Cross-stage partial block: two 1x1 branches, a chain of bottlenecks, everything joined.

    The branches are two convolutions instead of one that is split, so that their channels can be
    cut independently.

    Args:
        in_channels: Channels read.
        out_channels: Channels made, even; each branch has half of them.
        n: Number of bottlenecks.
        add: Bottlenecks add their input to their output.
    """

    def __init__(self, in_channels: int, out_channels: int, n: int = 1, add: bool = True):
        super().__init__()
        if out_channels % 2:
            raise ValueError(f"out_channels={out_channels} is odd: pass an even number")
        hidden = out_channels // 2
        self.conv1 = Conv(in_channels, hidden)
        self.conv2 = Conv(in_channels, hidden)
        self.conv3 = Conv((2 + n) * hidden, out_channels)
        self.bottlenecks = nn.ModuleList(Bottleneck(hidden, add) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        parts = [self.conv1(x), self.conv2(x)]
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        out: Tensor = self.conv3(torch.cat(parts, dim=1))
        return out


class SPP(nn.Module):
    """Spatial pyramid: a 1x1 convolution, chained max pools, all of them joined.

    Args:
        in_channels: Channels read, even.
        out_channels: Channels made.
        kernel: Side of the pools in pixels, odd.
        pools: Number of pools.
        add: Add the input to the output; needs as many channels made as read.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 5,
        pools: int = 3,
        add: bool = False,
    ):
        super().__init__()
        if in_channels % 2:
            raise ValueError(f"in_channels={in_channels} is odd: pass an even number")
        hidden = in_channels // 2
        self.conv1 = Conv(in_channels, hidden)
        self.conv2 = Conv((1 + pools) * hidden, out_channels)
        self.pool = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)
        self.pools = pools
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        parts = [self.conv1(x)]
        for _ in range(self.pools):
            parts.append(self.pool(parts[-1]))
        out: Tensor = self.conv2(torch.cat(parts, dim=1))
        return x + out if self.add else out
