"""Ten small networks for pictures of 8 x 8, one of each kind that is pruned in practice."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


def conv_norm(
    inputs: int, outputs: int, norm: Callable[[int], nn.Module], kernel: int = 3, groups: int = 1
) -> nn.Sequential:
    """Return convolution and norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm(outputs))


def classifier(*features: nn.Module, width: int) -> nn.Sequential:
    """Return features, the mean over space, and a linear head."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*features, pool, nn.Linear(width, CLASSES))


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = conv_norm(width, width, norm), conv_norm(width, width, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block to its input."""
        return F.relu(x + self.second(F.relu(self.first(x))))


def resnet(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """Return a residual network of two stages."""
    return classifier(
        conv_norm(1, 32, norm), nn.ReLU(), Residual(32, norm), nn.MaxPool2d(2),
        conv_norm(32, 64, norm, 1), Residual(64, norm), width=64,
    )  # fmt: skip


def group_norm_resnet() -> nn.Module:
    """Return the same with group norms."""
    return resnet(lambda width: nn.GroupNorm(8, width))


class ConvNextBlock(nn.Module):
    """Depthwise convolution, LayerNorm with channels last, MLP, layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Add the block to its input."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Return a ConvNeXt of three blocks."""
    blocks = [ConvNextBlock(48) for _ in range(3)]
    return classifier(nn.Conv2d(1, 48, 2, stride=2), *blocks, width=48)


class SqueezeExcite(nn.Module):
    """Gates of channels by their means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply channels by their gates."""
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 3 * width
        self.block = nn.Sequential(
            conv_norm(width, wide, nn.BatchNorm2d, 1), nn.Hardswish(),
            conv_norm(wide, wide, nn.BatchNorm2d, 3, wide), nn.Hardswish(),
            SqueezeExcite(wide), conv_norm(wide, width, nn.BatchNorm2d, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Add the block to its input."""
        return x + self.block(x)


def mobilenet() -> nn.Module:
    """Return a MobileNet of three inverted residuals."""
    blocks = [InvertedResidual(32) for _ in range(3)]
    return classifier(conv_norm(1, 32, nn.BatchNorm2d), nn.Hardswish(), *blocks, width=32)


class C2f(nn.Module):
    """Two halves of which one goes through bottlenecks, all concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.first = conv_norm(width, width, nn.BatchNorm2d, 1)
        self.inner = nn.ModuleList(Residual(half, nn.BatchNorm2d) for _ in range(2))
        self.last = conv_norm(4 * half, width, nn.BatchNorm2d, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels as came in."""
        parts = list(F.silu(self.first(x)).chunk(2, 1))
        for block in self.inner:
            parts.append(block(parts[-1]))
        return F.silu(self.last(torch.cat(parts, 1)))


def c2f() -> nn.Module:
    """Return a network of two C2f blocks."""
    stem = conv_norm(1, 32, nn.BatchNorm2d), nn.SiLU()
    return classifier(*stem, C2f(32), nn.MaxPool2d(2), C2f(32), width=32)


class ShuffleUnit(nn.Module):
    """Grouped convolutions with a channel shuffle between."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.shuffle = nn.ChannelShuffle(groups)
        self.first = conv_norm(width, width, nn.BatchNorm2d, 1, groups)
        self.depthwise = conv_norm(width, width, nn.BatchNorm2d, 3, width)
        self.second = conv_norm(width, width, nn.BatchNorm2d, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Add the unit to its input."""
        y = self.shuffle(F.relu(self.first(x)))
        return F.relu(x + self.second(self.depthwise(y)))


def shufflenet() -> nn.Module:
    """Return a ShuffleNet of three units."""
    units = [ShuffleUnit(64, 4) for _ in range(3)]
    return classifier(conv_norm(1, 64, nn.BatchNorm2d), nn.ReLU(), *units, width=64)


class UNet(nn.Module):
    """Two levels down, two up by transposed convolutions, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(conv_norm(a, b, nn.BatchNorm2d), nn.ReLU())
            for a, b in ((1, 16), (16, 32), (32, 64))
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in ((64, 32), (32, 16))
        )
        self.merge = nn.ModuleList(
            nn.Sequential(conv_norm(2 * b, b, nn.BatchNorm2d), nn.ReLU()) for b in (32, 16)
        )
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return two scores for each pixel."""
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        x = self.down[2](F.max_pool2d(second, 2))
        x = self.merge[0](torch.cat([self.up[0](x), second], 1))
        return self.head(self.merge[1](torch.cat([self.up[1](x), first], 1)))


class RowLSTM(nn.Module):
    """Two LSTM layers that read a picture row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.lstm = nn.LSTM(32, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores after the last row."""
        return self.head(self.lstm(F.relu(self.embed(x[:, 0])))[0][:, -1])


class Attention(nn.Module):
    """Fused qkv that states its heads, with a bias for each pair of places if given a table."""

    def __init__(self, width: int, heads: int, places: int = 0) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = None
        if places:
            self.table = nn.Parameter(0.02 * torch.randn((2 * places - 1) ** 2, heads))
            grid = torch.cartesian_prod(torch.arange(places), torch.arange(places))
            apart = grid[:, None] - grid[None] + places - 1
            self.register_buffer("places", apart[..., 0] * (2 * places - 1) + apart[..., 1])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix tokens (B, N, C)."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.table is not None:
            mask = self.table[self.places].permute(2, 0, 1)[None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP; within (shifted) windows if given their side."""

    def __init__(self, width: int, heads: int, window: int = 0, shift: int = 0) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, window)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens (B, N, C), or within windows of maps (B, H, W, C)."""
        y = self.norm1(x)
        x = x + (self.in_windows(y) if self.window else self.attention(y))
        return x + self.mlp(self.norm2(x))

    def in_windows(self, x: Tensor) -> Tensor:
        """Mix the tokens of each window; the maps are rolled, and wrap around."""
        batch, height, width, _ = x.shape
        side, rows, columns = self.window, height // self.window, width // self.window
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.unflatten(1, (rows, side)).unflatten(3, (columns, side)).transpose(2, 3)
        x = self.attention(x.flatten(0, 2).flatten(1, 2))
        x = x.unflatten(1, (side, side)).unflatten(0, (batch, rows, columns)).transpose(2, 3)
        return torch.roll(x.flatten(3, 4).flatten(1, 2), (self.shift, self.shift), (1, 2))


class VisionTransformer(nn.Module):
    """Patches of 2 x 2, class token, learned positions, three blocks."""

    def __init__(self, width: int = 64, heads: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores that the class token gives."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class Swin(nn.Module):
    """Windows of 4 x 4 pixels, shifted by half in every other block."""

    def __init__(self, width: int = 32, heads: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 1)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, heads, 4, shift) for shift in (0, 2, 0))
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the mean over space."""
        x = self.blocks(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean((1, 2)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "resnet_gn": group_norm_resnet,
    "convnext": convnext,
    "mobilenet": mobilenet,
    "c2f": c2f,
    "shufflenet": shufflenet,
    "unet": UNet,
    "lstm": RowLSTM,
    "vit": VisionTransformer,
    "swin": Swin,
}
