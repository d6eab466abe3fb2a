"""Pooling of the frames of a video with little aliasing."""

from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from lightning_prune.arguments import Count
from lightning_prune.neural.network.soft_pool import blur, soft_pool
from lightning_prune.neural.network.squeeze_excitation import SqueezeExcitation
from lightning_prune.validation import validated


class AntiAliasedPool(nn.Module):
    """Blur the frames, pool them and gate their channels.

    Args:
        channels: Channels of the input.
        stride: Side of the pooling windows in pixels, and their distance.
        reduction: Channels per hidden unit of the gates.
        use_soft: Soft pooling; otherwise the mean of each window.

    Raises:
        ValueError: an argument is out of range.

    Source: R. Zhang, 2019, Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486.
    """

    @validated
    def __init__(
        self, channels: int, stride: Count = 2, reduction: Count = 4, use_soft: bool = True
    ) -> None:
        super().__init__()
        self.stride = stride
        self.use_soft = use_soft
        self.gate = SqueezeExcitation(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C, T, H // stride, W // stride)."""
        smooth = blur(x)
        if self.use_soft:
            pooled = soft_pool(smooth, self.stride)
        else:
            pooled = avg_pool3d(smooth, (1, self.stride, self.stride))
        out: Tensor = self.gate(pooled)
        return out

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"stride={self.stride}, use_soft={self.use_soft}"
