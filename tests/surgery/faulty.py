"""Networks that a trace takes for prunable and a cut would break, or change."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = torch.zeros(2, 3, 8, 8)


class Between(nn.Module):
    """Convolution `a`, an operation, convolution `b`, head: what `a` makes is treated oddly."""

    def __init__(self, operation, wide: int = 16) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(wide, 12, 3, padding=1)
        self.head, self.operation = nn.Linear(12, 4), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.operation(self.a(x).relu())).relu().mean((2, 3)))


class WrittenSize(nn.Module):
    """A size stands in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu().view(-1, 6 * 64))


class Detached(nn.Module):
    """A layer reads features that autograd does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.head, self.other = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu()).mean((2, 3))
        return self.head(y) + self.other(y.detach())


class AuxiliaryHead(nn.Module):
    """A head that only the forward pass in training mode uses."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6))
        self.head, self.aux = nn.Linear(6, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.a(x).relu()
        out = self.head(self.b(y).relu().mean((2, 3)))
        return (out, self.aux(y.mean((2, 3)))) if self.training else out


class Attention(nn.Module):
    """Heads by their size or by their number; a zero-initialised output; a plain layer `up`."""

    def __init__(self, by_size: bool, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.i, self.out = nn.Linear(16, width), nn.Linear(width, 5)
        self.q, self.k, self.v, self.p = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)
        self.shape = (-1, width // heads) if by_size else (heads, -1)
        for layer in (self.q, self.k, self.p):
            nn.init.normal_(layer.weight, std=1e-3)
        nn.init.zeros_(self.p.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        q, k, v = (
            part(x).view(*x.shape[:2], *self.shape).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        x = x + self.p(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.out((x + self.down(self.up(x).relu())).mean(1))


class ByName(nn.Module):
    """Boxes after a threshold: the output does not show what `b` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 6, 3)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.b(self.a(x).softmax(1)).relu()).flatten(1)
        return scores * (scores > 1e6)


TOKENS = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))

FAULTS = [
    ("softmax", lambda: Between(lambda x: x.softmax(1)), IMAGE, {"a"}, {"b"}),
    ("mean", lambda: Between(lambda x: x - x.mean(1, keepdim=True)), IMAGE, {"a"}, {"b"}),
    ("flip", lambda: Between(lambda x: x.flip(1)), IMAGE, set(), {"a", "b"}),
    ("group norm", lambda: Between(lambda x: F.group_norm(x, 4)), IMAGE, {"a"}, {"b"}),
    ("repeat", lambda: Between(lambda x: x.repeat(1, 2, 1, 1), 32), IMAGE, set(), {"a", "b"}),
    ("written size", WrittenSize, IMAGE, {"b"}, {"a"}),
    ("detached", Detached, IMAGE, set(), {"a", "b"}),
    ("auxiliary head", AuxiliaryHead, IMAGE, set(), {"a", "b.0"}),
    ("heads by number", lambda: Attention(False), TOKENS, set(), {"q", "k", "v", "up"}),
    ("heads by size", lambda: Attention(True), TOKENS, set(), {"q", "k", "v", "up"}),
    ("threshold", ByName, IMAGE, {"a"}, {"b"}),
]
"""(name, network, example, layers that must be refused, layers that must be prunable)"""
