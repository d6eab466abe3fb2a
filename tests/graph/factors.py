"""A fused attention whose heads and head width are two groups of the same rows, made by hand."""

import torch
from torch import Tensor, nn

from lightning_prune.graph.group import ChannelGroups, Group, Member, Size
from lightning_prune.graph.layer_kinds import Role

INPUTS, HEADS, WIDTH, OUTPUTS = 5, 4, 6, 8
ROWS = (("weight", 0), ("bias", 0))
COLUMNS = (("weight", 1),)


class Attention(nn.Module):
    """Embeds tokens and attends once; its sizes are numbers in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(INPUTS, OUTPUTS)
        self.qkv = nn.Linear(OUTPUTS, 3 * HEADS * WIDTH)
        self.project = nn.Linear(HEADS * WIDTH, OUTPUTS)
        self.head = nn.Linear(OUTPUTS, 3)
        self.num_heads, self.split = HEADS, (3, HEADS, WIDTH)
        self.scale = WIDTH**-0.5

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(x).unflatten(-1, self.split).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        assert self.num_heads == weights.shape[1]
        return self.head(x + self.project(attended))


def part(layer: str, role: Role, channel: Tensor) -> Member:
    dims = COLUMNS if role == "consumer" else ROWS
    return Member(layer, role, torch.arange(len(channel)), channel, dims)


def factor_groups() -> ChannelGroups:
    rows, columns = torch.arange(3 * HEADS * WIDTH), torch.arange(HEADS * WIDTH)
    heads = Group(
        "qkv",
        HEADS,
        (
            part("qkv", "producer", rows % (HEADS * WIDTH) // WIDTH),
            part("project", "consumer", columns // WIDTH),
        ),
        sizes=(Size("", "num_heads"), Size("", "split", 1)),
    )
    width = Group(
        "qkv:2",
        WIDTH,
        (
            part("qkv", "producer", rows % WIDTH),
            part("project", "consumer", columns % WIDTH),
        ),
        sizes=(Size("", "split", 2),),
    )
    every = torch.arange(OUTPUTS)
    stream = Group(
        "embed",
        OUTPUTS,
        (
            part("embed", "producer", every),
            part("project", "producer", every),
            part("qkv", "consumer", every),
            part("head", "consumer", every),
        ),
    )
    order = ("embed", "qkv", "project", "head")
    return ChannelGroups({g.name: g for g in (stream, heads, width)}, {}, order)


def example() -> Tensor:
    return torch.randn(2, 7, INPUTS, generator=torch.Generator().manual_seed(1))


def attention() -> Attention:
    torch.manual_seed(0)
    return Attention().eval()


class Bare(nn.Module):
    """Channels in parameters of no known layer: a table, positions, two matrices of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.positions = nn.Parameter(torch.randn(1, 4, 6))
        self.up = nn.Parameter(torch.randn(6, 10))
        self.down = nn.Parameter(torch.randn(10, 6))
        self.gain = nn.Parameter(torch.rand(6) + 0.5)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = (self.table(tokens) + self.positions) * self.gain
        x = x + (x @ self.up).relu() @ self.down
        return self.head(x)


def bare_groups() -> ChannelGroups:
    every, inner = torch.arange(6), torch.arange(10)
    stream = Group(
        "table",
        6,
        (
            Member("table", "producer", every, every, (("weight", 1),)),
            Member("", "producer", every, every, (("positions", 2), ("down", 1)), shows=False),
            Member("", "carrier", every, every, (("gain", 0),)),
            Member("", "consumer", every, every, (("up", 0),)),
        ),
    )
    hidden = Group(
        "up",
        10,
        (
            Member("", "producer", inner, inner, (("up", 1),), shows=False),
            Member("", "consumer", inner, inner, (("down", 0),)),
        ),
    )
    return ChannelGroups({"table": stream, "up": hidden}, {}, ("table", "head"))
