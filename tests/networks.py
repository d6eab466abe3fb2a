"""Small networks of every shape that the groups must get right, and random plans for them."""

import torch
from torch import Tensor, nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Sequential:
    """Convolution, BatchNorm with non-trivial statistics, SiLU."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, norm, nn.SiLU())


class Chain(nn.Module):
    """A plain chain with a flattened linear head and a bias in every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.PReLU(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.linear = nn.Linear(12 * 4 * 4, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.conv2(self.act(self.conv1(x))))
        return self.head(torch.relu(self.linear(x.flatten(1))))


class Residual(nn.Module):
    """Two residual blocks, the second with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.a1, self.a2 = conv_bn(8, 6), conv_bn(6, 8)
        self.b1, self.b2 = conv_bn(8, 10), conv_bn(10, 12)
        self.project = conv_bn(8, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.a2(self.a1(x))
        x = self.project(x) + self.b2(self.b1(x))
        return self.head(x.mean((2, 3)))


class Concat(nn.Module):
    """Concatenation, pooling pyramid, a transposed convolution and an upsampled branch."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv_bn(3, 6), conv_bn(3, 10)
        self.norm = nn.BatchNorm2d(16)
        self.fuse = conv_bn(16, 8)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.pyramid = conv_bn(24, 8, 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fuse(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        once = self.pool(x)
        x = self.pyramid(torch.cat([x, once, self.pool(once)], 1))
        return self.head(torch.relu(self.up(x)))


class Depthwise(nn.Module):
    """Inverted residuals: expansion, depthwise, squeeze-excitation, projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.expand = conv_bn(8, 16, 1)
        self.depthwise = conv_bn(16, 16, 3, groups=16)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = conv_bn(16, 8, 1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head(x + self.project(y))


NETWORKS: tuple[type[nn.Module], ...] = (Chain, Residual, Concat, Depthwise)
EXAMPLE = torch.zeros(1, 3, 8, 8)


class AttentionBlock(nn.Module):
    """Pre-norm attention with a fused qkv that states its heads, and an MLP."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Patches of 2 x 2 of pictures of 8 x 8, class token, learned positions, blocks, head."""

    def __init__(
        self, classes: int, width: int = 32, heads: int = 4, hidden: int = 48, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(
            *(AttentionBlock(width, heads, hidden, dropout) for _ in range(2))
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def make(network: type[nn.Module], seed: int = 0) -> nn.Module:
    """Build a network with seeded weights."""
    torch.manual_seed(seed)
    return network()


def random_plan(groups: ChannelGroups, seed: int = 0, share: float = 0.5) -> PruningPlan:
    """Keep a random share of the channels of every group."""
    generator = torch.Generator().manual_seed(seed)
    keep = {
        name: torch.randperm(group.channels, generator=generator)[
            : max(1, int(group.channels * share))
        ].sort()[0]
        for name, group in groups.items()
    }
    return PruningPlan(keep, {name: group.channels for name, group in groups.items()})
