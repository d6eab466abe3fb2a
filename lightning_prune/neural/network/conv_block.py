"""A causal 3-D convolution with norm, activation, dropout and pooling."""

from torch import Tensor, nn

from lightning_prune.neural.network.activation import activation
from lightning_prune.neural.network.anti_aliased_pool import AntiAliasedPool
from lightning_prune.neural.network.byte_dropout import ByteDropout
from lightning_prune.neural.network.causal_pad import causal_pad
from lightning_prune.neural.network.depthwise_separable_conv import DepthwiseSeparableConv3d
from lightning_prune.neural.network.options import (
    BlockOptions,
    ConvNetOptions,
    PoolOptions,
)
from lightning_prune.neural.network.rms_norm import RMSNorm
from lightning_prune.neural.network.weight_norm_conv import WeightNormConv3d


class ConvBlock(nn.Module):
    """Pad, convolve, normalise, activate, drop, pool.

    The first frame and the pixels at the border are repeated outwards. Time is padded in the past
    only: frame t of the result depends on no frame after ``stride * t`` of the input.

    Args:
        in_channels: Channels read.
        out_channels: Channels made.
        block: Sizes, dropout and pooling of this block.
        net: What all blocks have in common: convolutions, norms, activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, block: BlockOptions, net: ConvNetOptions
    ):
        super().__init__()
        self.kernel = block.kernel
        self.strides = block.steps
        self.dilations = block.distances
        self.borders = block.borders
        self.conv = _convolution(in_channels, out_channels, block, net)
        self.norm = _norm(out_channels, net)
        self.act = activation(net.activation)
        self.drop = ByteDropout(block.dropout) if block.dropout else nn.Identity()
        self.pool = _pool(out_channels, block.pool)

    def forward(self, x: Tensor, frames: int | None = None) -> Tensor:
        """Map (B, in_channels, T, H, W) to (B, out_channels, T', H', W').

        Args:
            x: The input.
            frames: Compute the last ``frames`` frames of the result alone; None: all.

        Raises:
            ValueError: the frames are too small for the kernel.
        """
        self._check(x)
        past = self.dilations[0] * (self.kernel[0] - 1)
        if frames is not None:
            # Frames that nobody asked for are left out before the convolution, not after it.
            past -= self.strides[0] * (self.frames_made(x.shape[2]) - frames)
        rows, columns = self.borders
        x = x[:, :, max(-past, 0) :]
        x = causal_pad(x, max(past, 0), rows, columns)
        out: Tensor = self.pool(self.drop(self.act(self.norm(self.conv(x)))))
        return out

    def frames_made(self, frames: int) -> int:
        """Return the number of frames of the result for an input of ``frames`` frames."""
        return (frames - 1) // self.strides[0] + 1

    def _check(self, x: Tensor) -> None:
        for name, size, k, d, border in zip(
            ("rows", "columns"),
            x.shape[3:],
            self.kernel[1:],
            self.dilations[1:],
            self.borders,
            strict=True,
        ):
            if size + 2 * border < d * (k - 1) + 1:
                raise ValueError(
                    f"frames with {size} {name} are too small for a kernel of {k} with dilation "
                    f"{d} and padding {border}: use larger frames or fewer strided blocks"
                )


def _convolution(
    in_channels: int, out_channels: int, block: BlockOptions, net: ConvNetOptions
) -> nn.Module:
    if net.conv_type == "depthwise":
        return DepthwiseSeparableConv3d(
            in_channels, out_channels, block.kernel, block.steps, block.distances
        )
    kind = WeightNormConv3d if net.use_weight_norm else nn.Conv3d
    return kind(
        in_channels,
        out_channels,
        block.kernel,
        block.steps,
        dilation=block.distances,
        bias=net.norm_type == "none",
    )


def _norm(channels: int, net: ConvNetOptions) -> nn.Module:
    if net.norm_type == "rms":
        return RMSNorm(channels, eps=net.norm_eps, affine=net.norm_affine)
    if net.norm_type == "batch":
        return nn.BatchNorm3d(channels, eps=net.norm_eps, affine=net.norm_affine)
    return nn.Identity()


def _pool(channels: int, pool: PoolOptions | None) -> nn.Module:
    if pool is None:
        return nn.Identity()
    return AntiAliasedPool(channels, pool.stride, pool.reduction, pool.use_soft)
