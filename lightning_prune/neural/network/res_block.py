"""A convolution block beside a shortcut."""

from torch import Tensor, nn

from lightning_prune.neural.network.activation import activation
from lightning_prune.neural.network.conv_block import ConvBlock
from lightning_prune.neural.network.cropped_sum import cropped_sum
from lightning_prune.neural.network.options import BlockOptions, ConvNetOptions
from lightning_prune.neural.network.pointwise_conv import PointwiseConv3d


class ResBlock(nn.Module):
    """Add a convolution block to its input.

    Where channels or sizes differ, the shortcut is a 1x1x1 convolution without bias whose stride,
    over time as well, is that of the block times that of its pooling. Where the two differ still,
    both are cut to the smaller size: to the last frames, and to the middle of each frame.

    Args:
        in_channels: Channels read.
        out_channels: Channels made.
        block: Sizes, dropout and pooling of this block.
        net: What all blocks have in common.

    Source: K. He, X. Zhang, S. Ren, J. Sun, 2016, Identity Mappings in Deep Residual Networks,
    arXiv 1603.05027.
    """

    def __init__(
        self, in_channels: int, out_channels: int, block: BlockOptions, net: ConvNetOptions
    ):
        super().__init__()
        self.main = ConvBlock(in_channels, out_channels, block, net)
        pooling = 1 if block.pool is None else block.pool.stride
        time, rows, columns = (step * pooling for step in block.steps)
        same = in_channels == out_channels and time == rows == columns == 1
        self.shortcut = (
            nn.Identity()
            if same
            else PointwiseConv3d(in_channels, out_channels, (time, rows, columns))
        )
        self.act = activation(net.sum_activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T, H, W) to (B, out_channels, T', H', W')."""
        shortcut = self.shortcut(x)
        # Frames that the sum would leave out are not computed.
        main = self.main(x, min(shortcut.shape[2], self.main.frames_made(x.shape[2])))
        summed: Tensor = self.act(cropped_sum(main, shortcut))
        return summed
