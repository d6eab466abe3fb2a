"""YOLOv8: backbone, neck and head in five sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lightning_prune.detection.network.architecture import Architecture, record_architecture
from lightning_prune.detection.network.blocks import CSP, SPP, Conv
from lightning_prune.detection.network.head import Head


@dataclass(frozen=True)
class Scale:
    """Widths (channels of p1..p5) and depths (bottlenecks per CSP block) of a network."""

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int]


CUSTOM = "custom"
"""Size of a network whose widths and depths are of none of the published sizes."""
Size = Literal["n", "s", "m", "l", "x", "custom"]
SIZES = {
    "n": Scale((16, 32, 64, 128, 256), (1, 2, 2)),
    "s": Scale((32, 64, 128, 256, 512), (1, 2, 2)),
    "m": Scale((48, 96, 192, 384, 576), (2, 4, 4)),
    "l": Scale((64, 128, 256, 512, 512), (3, 6, 6)),
    "x": Scale((80, 160, 320, 640, 640), (3, 6, 6)),
}
"""The published sizes."""
LARGEST_STRIDE = 32
Block = Callable[[int, int, int, bool], CSP]
"""Builds a CSP block from channels read, channels made, bottlenecks, and whether they add."""


class Stage(nn.Module):
    """One stage of the backbone: a 3x3 convolution of stride 2, a CSP block, at the end an SPP."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int,
        block: Block = CSP,
        pyramid: Architecture | None = None,
    ):
        super().__init__()
        self.down = Conv(in_channels, out_channels, 3, stride=2)
        self.csp = block(out_channels, out_channels, depth, True)
        self.spp = nn.Identity() if pyramid is None else _pyramid(out_channels, pyramid)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / 2, W / 2)."""
        out: Tensor = self.spp(self.csp(self.down(x)))
        return out


class Backbone(nn.Module):
    """Stages p1..p5 at strides 2, 4, 8, 16, 32."""

    def __init__(
        self,
        in_channels: int,
        scale: Scale,
        block: Block = CSP,
        architecture: Architecture | None = None,
    ):
        super().__init__()
        w1, w2, w3, w4, w5 = scale.widths
        d0, d1, d2 = scale.depths
        self.p1 = Conv(in_channels, w1, 3, stride=2)
        self.p2 = Stage(w1, w2, d0)
        self.p3 = Stage(w2, w3, d1, block=block)
        self.p4 = Stage(w3, w4, d2, block=block)
        self.p5 = Stage(w4, w5, d0, block, architecture or Architecture())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map an image (B, in_channels, H, W) to p3, p4, p5."""
        p3 = self.p3(self.p2(self.p1(x)))
        p4 = self.p4(p3)
        return p3, p4, self.p5(p4)


class Neck(nn.Module):
    """A top-down and a bottom-up path over p3, p4, p5.

    Source: S. Liu, L. Qi, H. Qin, J. Shi, J. Jia, 2018, Path Aggregation Network for Instance
    Segmentation, arXiv 1803.01534.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        _, _, w3, w4, w5 = scale.widths
        depth = scale.depths[0]
        self.top_down4 = CSP(w5 + w4, w4, depth, add=False)
        self.top_down3 = CSP(w4 + w3, w3, depth, add=False)
        self.down3 = Conv(w3, w3, 3, stride=2)
        self.bottom_up4 = CSP(w3 + w4, w4, depth, add=False)
        self.down4 = Conv(w4, w4, 3, stride=2)
        self.bottom_up5 = CSP(w4 + w5, w5, depth, add=False)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map the backbone's features to those of the head, at strides 8, 16, 32."""
        middle = self.top_down4(torch.cat((_double(p5), p4), dim=1))
        fine = self.top_down3(torch.cat((_double(middle), p3), dim=1))
        middle = self.bottom_up4(torch.cat((self.down3(fine), middle), dim=1))
        coarse = self.bottom_up5(torch.cat((self.down4(middle), p5), dim=1))
        return fine, middle, coarse


def _pyramid(channels: int, built: Architecture) -> SPP:
    return SPP(channels, channels, built.pool_kernel, built.pools, built.pool_shortcut)


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2.0, mode="nearest")


class YOLOv8(nn.Module):
    """YOLOv8 detector in plain operations that a dependency graph can follow.

    In training mode the forward pass returns three raw maps (B, 64 + nc, h, w) at strides 8, 16,
    32; in eval mode (B, 4 + nc, A): boxes as centre x, centre y, width, height in pixels of the
    input, then class probabilities. ``raw_maps`` gives the maps in either mode.

    Args:
        size: One of n, s, m, l, x, or custom, which needs widths and depths.
        num_classes: Number of classes.
        in_channels: Channels of the image.
        widths: Channels of p1..p5 instead of those of ``size``, even numbers from p2 on.
        depths: Bottlenecks per CSP block (d0, d1, d2) instead of those of ``size``.
        block: CSP block of the backbone's stages p3, p4 and p5.
        architecture: What else is not as published: activations, norms, pyramid, branches;
            an ``Architecture``, or a mapping of some of its values.

    Attributes:
        architecture: The ``Architecture``.

    Raises:
        ValueError: an argument is out of range.

    Source: architecture and sizes as published for YOLOv8 (Jocher, Chaurasia, Qiu, 2023); CSP:
    C.-Y. Wang et al., 2019, CSPNet, arXiv 1911.11929.

    >>> network = YOLOv8("n", num_classes=80)
    >>> sum(p.numel() for p in network.parameters())
    3157200
    >>> network.eval()(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 84, 126])
    """

    def __init__(
        self,
        size: str = "n",
        num_classes: int = 80,
        in_channels: int = 3,
        widths: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        block: Block = CSP,
        architecture: Architecture | Mapping[str, Any] | None = None,
    ):
        super().__init__()
        built = Architecture.of(architecture)
        widths = built.widths if widths is None else widths
        depths = built.depths if depths is None else depths
        scale = _scale(size, widths, depths)
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: pass an integer of at least 1")
        self.backbone = Backbone(in_channels, scale, block, built)
        self.neck = Neck(scale)
        self.head = Head(scale.widths[2:], num_classes, built.box_width, built.class_width)
        built.apply(self)
        self.architecture = built
        record_architecture(self)

    def raw_maps(self, images: Tensor) -> list[Tensor]:
        """Map images (B, in_channels, H, W) to raw maps (B, 64 + nc, h, w), finest first.

        Raises:
            ValueError: a side of the images is not a multiple of 32.
        """
        height, width = images.shape[-2:]
        if height % LARGEST_STRIDE or width % LARGEST_STRIDE:
            raise ValueError(
                f"images of {height} x {width} pixels: both sides must be multiples of "
                f"{LARGEST_STRIDE}; letterbox or pad them first"
            )
        maps: list[Tensor] = self.head(self.neck(*self.backbone(images)))
        return maps

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Return raw maps in training mode, decoded predictions in eval mode."""
        maps = self.raw_maps(images)
        return maps if self.training else self.head.decode(maps)


def _scale(size: str, widths: Sequence[int] | None, depths: Sequence[int] | None) -> Scale:
    if size == CUSTOM and (widths is None or depths is None):
        raise ValueError(f"size={size!r} needs widths and depths: pass both in architecture")
    if size not in SIZES and size != CUSTOM:
        raise ValueError(f"size={size!r} is unknown: pass one of {', '.join(SIZES)}, {CUSTOM}")
    widths = tuple(SIZES[size].widths if widths is None else widths)
    depths = tuple(SIZES[size].depths if depths is None else depths)
    if len(widths) != 5 or min(widths) < 1 or any(width % 2 for width in widths[1:]):
        raise ValueError(f"widths={widths}: pass 5 positive numbers, even from the second on")
    if len(depths) != 3 or min(depths) < 0:
        raise ValueError(f"depths={depths}: pass 3 numbers, none negative")
    w1, w2, w3, w4, w5 = widths
    d0, d1, d2 = depths
    return Scale((w1, w2, w3, w4, w5), (d0, d1, d2))
