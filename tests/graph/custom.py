"""Layers that torch-pruning does not know, and say themselves what their channels are."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.graph.custom_layer import CarrierProxy
from lightning_prune.graph.group import Member
from lightning_prune.graph.single_layer import SingleLayer


class Scale(SingleLayer, nn.Module):
    """One factor for each channel, under a name of its own."""

    channel_scale = "factor"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor.view(-1, *[1] * (x.ndim - 2))

    def proxy(self) -> nn.Module:
        return CarrierProxy(len(self.factor))

    def channel_dims(self, role: str) -> list[tuple[str, int]]:
        return [("factor", 0)]


class Recurrent(Scale):
    """h' = tanh(W x_t + norm(U h)), the start learned; U in n groups; the last state is given."""

    channel_scale = None  # type: ignore[assignment]

    def __init__(self, inputs: int, hidden: int, groups: int = 1, norm_groups: int = 0) -> None:
        super().__init__(hidden)
        self.write = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.repeat = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False, groups=groups)
        self.norm = nn.GroupNorm(norm_groups, hidden) if norm_groups else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.factor.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[3:])
        for step in x.unbind(2):
            h = torch.tanh(self.write(step) + self.norm(self.repeat(h)))
        return h

    def proxy(self) -> nn.Module:
        class Proxy(nn.Conv2d):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x.mean(2))

        return Proxy(self.write.in_channels, len(self.factor), 1)

    def channel_members(self, role: str) -> tuple[Member, ...]:
        hidden = torch.arange(len(self.factor))
        if role == "consumer":
            inputs = torch.arange(self.write.in_channels)
            return (Member("write", "consumer", inputs, inputs),)
        columns = torch.arange(self.repeat.weight.shape[1])
        found = [
            Member("write", "producer", hidden, hidden, shows=False),
            Member("repeat", "producer", hidden, hidden, shows=False),
            Member("", "carrier", hidden, hidden, shows=True),
            Member("repeat", "consumer", columns, columns),
        ]
        if isinstance(self.norm, nn.GroupNorm):
            found.append(Member("norm", "carrier", hidden, hidden))
        return tuple(found)

    def bundle(self, role: str) -> int:
        return self.repeat.groups if role == "producer" else 1

    def width_step(self, role: str) -> int:
        is_normed = role == "producer" and isinstance(self.norm, nn.GroupNorm)
        return self.norm.num_groups if is_normed else 1

    def mixing_layers(self, role: str) -> tuple[str, ...]:
        return ("norm",) if self.width_step(role) > 1 else ()


class Movie(nn.Module):
    """Frames (B, 2, T, H, W), a scaled convolution, a recurrent block, a projection, a head."""

    def __init__(self, hidden: int = 12, groups: int = 1, norm_groups: int = 0) -> None:
        super().__init__()
        self.stem, self.scale = nn.Conv3d(2, 8, 3, padding=1), Scale(8)
        self.memory = Recurrent(8, hidden, groups, norm_groups)
        self.project = nn.Conv2d(hidden, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.scale(self.stem(x)))
        return self.head(torch.relu(self.project(self.memory(x))).mean((2, 3)))


MOVIE = torch.zeros(2, 2, 4, 5, 5)
