"""A chain of residual blocks over a video."""

from torch import Tensor, nn

from lightning_prune.neural.network.options import ConvNetOptions
from lightning_prune.neural.network.res_block import ResBlock


class ResNet3d(nn.Module):
    """3-D ResNet, causal in time.

    Where a stride over time does not divide the number of frames less one, the newest frames do
    not reach the result: of 10 frames and a stride of 2, the last.

    Args:
        in_channels: Channels of the input.
        options: Channels, blocks, and what the blocks have in common.

    >>> import torch
    >>> ResNet3d(4).eval()(torch.zeros(2, 4, 10, 51, 51)).shape
    torch.Size([2, 256, 2, 6, 6])
    """

    def __init__(self, in_channels: int, options: ConvNetOptions | None = None):
        super().__init__()
        options = options or ConvNetOptions()
        widths = (in_channels, *options.channels)
        self.blocks = nn.ModuleList(
            ResBlock(width, made, block, options)
            for width, made, block in zip(
                widths[:-1], options.channels, options.blocks, strict=True
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T, H, W) to (B, channels[-1], T', H', W')."""
        for block in self.blocks:
            x = block(x)
        return x
