"""A recurrent block and a scale of channels, written without a thought of pruning."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Scale(nn.Module):
    """One factor for each channel, under a name of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor.view(-1, *[1] * (x.ndim - 2))


class Recurrent(nn.Module):
    """h' = tanh(W x_t + norm(U h)), the start learned; U in n groups; the last state is given."""

    def __init__(self, inputs: int, hidden: int, groups: int = 1, norm_groups: int = 0) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.rand(hidden) + 0.5)
        self.write = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.repeat = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False, groups=groups)
        self.norm = nn.GroupNorm(norm_groups, hidden) if norm_groups else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.start.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[3:])
        for step in x.unbind(2):
            h = torch.tanh(self.write(step) + self.norm(self.repeat(h)))
        return h


class Gated(nn.Module):
    """A gate and a value of each hidden channel out of one convolution."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.both = nn.Conv2d(inputs, 2 * hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(x).chunk(2, 1)
        return gate.sigmoid() * value


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
