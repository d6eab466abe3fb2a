"""Networks whose modules state widths as numbers: heads, groups, splits, recurrent layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.swin_transformer import SwinTransformer

IMAGE, TOKENS = torch.zeros(1, 3, 32, 32), torch.zeros(1, 6, 8)


def regnet():
    params = BlockParams(
        depths=[1, 1], widths=[16, 32], group_widths=[8, 8], bottleneck_multipliers=[1.0, 1.0],
        strides=[2, 2], se_ratio=0.25,
    )  # fmt: skip
    return RegNet(params, num_classes=4, stem_width=8)


def swin():
    return SwinTransformer(
        patch_size=[2, 2], embed_dim=32, depths=[1, 1], num_heads=[4, 8], window_size=[4, 4],
        stochastic_depth_prob=0.0, num_classes=4,
    )  # fmt: skip


class Attention(nn.Module):
    """Fused queries, keys and values, and three numbers that say how wide they are."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, width // heads, width
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scale: float | None = 0.35

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.project(out.transpose(1, 2).reshape(b, n, self.attn_dim))


class Block(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """A classifier of images by patches."""

    def __init__(self, blocks: int = 2, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


class Conv1D(nn.Module):
    """A linear layer as GPT-2 has it: weight (inputs, outputs), and both sizes as numbers."""

    def __init__(self, nx: int, nf: int) -> None:
        super().__init__()
        self.nx, self.nf = nx, nf
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.2)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Gpt(nn.Module):
    """An embedding of inputs, and two layers of a language model's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.fc, self.project = Conv1D(16, 64), Conv1D(64, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.project(F.gelu(self.fc(x))))


class C2f(nn.Module):
    """The block of YOLOv8 that splits by its own number."""

    def __init__(self, inputs: int = 16, outputs: int = 16) -> None:
        super().__init__()
        self.c = outputs // 2
        self.cv1 = nn.Conv2d(inputs, 2 * self.c, 1)
        self.m = nn.ModuleList(nn.Conv2d(self.c, self.c, 3, padding=1) for _ in range(2))
        self.cv2 = nn.Conv2d(4 * self.c, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).relu().split((self.c, self.c), 1))
        y.extend(m(y[-1]).relu() for m in self.m)
        return self.cv2(torch.cat(y, 1))


class Recurrent(nn.Module):
    """Pixels in a row, read by layers that each have the same hidden size."""

    def __init__(self, kind: type[nn.RNNBase], directions: int = 1, **sizes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 3, 4)
        self.rnn = kind(8, 12, batch_first=True, bidirectional=directions == 2, **sizes)
        width = directions * (sizes.get("proj_size") or 12)
        self.join, self.head = nn.Linear(width, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).relu().flatten(2).transpose(1, 2)
        return self.head(self.join(self.rnn(x)[0]).relu())


class Encoder(nn.Module):
    """A layer of torch's own transformer over patches."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 48, 0.0, batch_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.layer(x).mean(1))


def lstm():
    return Recurrent(nn.LSTM, 2, num_layers=2)


def projected_lstm():
    return Recurrent(nn.LSTM, 2, num_layers=2, proj_size=6)


def gru():
    return Recurrent(nn.GRU, num_layers=2)


def rnn():
    return Recurrent(nn.RNN, 2, num_layers=2)


def c2f():
    return nn.Sequential(nn.Conv2d(3, 16, 3), C2f(), nn.ReLU(), nn.Conv2d(16, 4, 1))


NETWORKS = {
    "regnet": (regnet, IMAGE),
    "swin": (swin, IMAGE),
    "vit": (Vit, IMAGE),
    "encoder": (Encoder, IMAGE),
    "gpt": (Gpt, TOKENS),
    "c2f": (c2f, IMAGE),
    "lstm": (lstm, IMAGE),
    "projected lstm": (projected_lstm, IMAGE),
    "gru": (gru, IMAGE),
    "rnn": (rnn, IMAGE),
}
