"""The v2 neural-response network written layer by layer, the obvious way: what neural.py beats.

Every layer is one of torch's modules and makes its whole output; the names of the parameters are
those of ``NeuralResponseNetwork``, so that both run with the same weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Norm(nn.Module):
    """RMS norm over the channels, in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, T, H, W)."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(1, keepdim=True) + 1e-5)
        shape = (1, -1, 1, 1, 1)
        return (normed * self.gamma.view(shape) + self.beta.view(shape)).to(x.dtype)


class Gate(nn.Module):
    """Squeeze-excitation, frame by frame."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(channels, channels // reduction, 1)
        self.act = nn.SiLU()
        self.expand = nn.Conv3d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gate (B, C, T, H, W)."""
        means = F.adaptive_avg_pool3d(x, (x.shape[2], 1, 1))
        return x * torch.sigmoid(self.expand(self.act(self.reduce(means))))


class Pool(nn.Module):
    """Blur, soft pooling, squeeze-excitation."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(taps, taps).expand(channels, 1, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)
        self.gate = Gate(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the frames of (B, C, T, H, W)."""
        x = F.conv3d(x, self.kernel, padding=(0, 1, 1), groups=x.shape[1])
        weights = torch.exp(x)
        x = F.avg_pool3d(weights * x, (1, 2, 2)) / F.avg_pool3d(weights, (1, 2, 2))
        return self.gate(x)


class Separable(nn.Module):
    """Depthwise, then pointwise convolution."""

    def __init__(self, inner: int, made: int, kernel: tuple[int, ...], **named: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(inner, inner, kernel, groups=inner, bias=False, **named)
        self.pointwise = nn.Conv3d(inner, made, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Filter, then mix the channels."""
        return self.pointwise(self.depthwise(x))


class Main(nn.Module):
    """Pad, convolve, normalise, activate, drop, pool."""

    def __init__(self, inner: int, made: int, kernel: tuple[int, ...], padding: int, stride: int,
                 dilation: int, dropout: float, pool: bool) -> None:  # fmt: skip
        super().__init__()
        self.padding = (padding,) * 4 + (dilation * (kernel[0] - 1), 0)
        self.conv = Separable(inner, made, kernel, stride=stride, dilation=dilation)
        self.norm = Norm(made)
        self.act = nn.SiLU()
        self.drop = nn.Dropout(dropout)
        self.pool = Pool(made, 4) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inner, T, H, W) to (B, made, T', H', W')."""
        x = F.pad(x, self.padding, mode="replicate")
        return self.pool(self.drop(self.act(self.norm(self.conv(x)))))


class Block(nn.Module):
    """A convolution block and its shortcut, cut to one size."""

    def __init__(self, inner: int, made: int, *arguments: object) -> None:
        super().__init__()
        self.main = Main(inner, made, *arguments)
        self.shortcut = nn.Conv3d(inner, made, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inner, T, H, W) to (B, made, T / 2, H / 2, W / 2)."""
        main, shortcut = self.main(x), self.shortcut(x)
        time, height, width = (min(main.shape[d], shortcut.shape[d]) for d in (2, 3, 4))
        main = main[:, :, -time:, :height, :width]
        return main + shortcut[:, :, -time:, :height, :width]


class Front(nn.Module):
    """The convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, (16, 1, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, T, H, W) to (B, 4, T - 15, H, W)."""
        return self.conv(x)


class Cell(nn.Module):
    """The recurrent cell; the input is convolved step by step."""

    def __init__(self, inner: int, hidden: int) -> None:
        super().__init__()
        self.conv_x = nn.Conv2d(inner, 3 * hidden, 3, padding=1)
        self.conv_h = nn.Conv2d(hidden, 3 * hidden, 3, padding=1, bias=False)
        self.layer_norm = nn.GroupNorm(32, 3 * hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Make the next hidden state."""
        z, r, n = torch.chunk(self.conv_x(x) + self.layer_norm(self.conv_h(h)), 3, dim=1)
        z, r = torch.sigmoid(z), torch.sigmoid(r)
        return (1 - z) * h + z * torch.tanh(n + r * h)


class Recurrent(nn.Module):
    """The cell over time."""

    def __init__(self, inner: int, hidden: int) -> None:
        super().__init__()
        self.cell = Cell(inner, hidden)
        self.h0 = nn.Parameter(torch.zeros(1, hidden, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inner, T, H, W) to the last hidden state."""
        h = self.h0.expand(len(x), -1, *x.shape[3:])
        for step in range(x.shape[2]):
            h = self.cell(x[:, :, step], h)
        return h


class Modulator(nn.Module):
    """Behaviour and features, joined and run over time."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.beh_emb = nn.Linear(42, 32)
        self.gru = Recurrent(features + 32, hidden)
        self.output_proj = nn.Conv2d(hidden, hidden, 1)

    def forward(self, features: Tensor, behavior: Tensor) -> Tensor:
        """Return the projected last state."""
        embedded = self.beh_emb(behavior)[:, :, None, None, None]
        embedded = embedded.expand(-1, -1, *features.shape[2:])
        return self.output_proj(self.gru(torch.cat((features, embedded), dim=1))).unsqueeze(2)


class Readout(nn.Module):
    """One Gaussian per cell."""

    def __init__(self, hidden: int, cells: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(hidden, cells, 1, bias=False)
        self.mean = nn.Parameter(torch.zeros(cells, 2))
        self.std = nn.Parameter(torch.ones(cells, 2))
        self.theta = nn.Parameter(torch.zeros(cells))
        self.bias = nn.Parameter(torch.zeros(cells))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, hidden, 1, H, W) to (B, N)."""
        maps = self.features(x[:, :, -1])
        rows = torch.arange(maps.shape[2]) - (maps.shape[2] - 1) / 2
        columns = torch.arange(maps.shape[3]) - (maps.shape[3] - 1) / 2
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        delta = grid[None] - self.mean[:, None, None]
        cosine, sine = torch.cos(self.theta), torch.sin(self.theta)
        turn = torch.stack((torch.stack((cosine, sine), 1), torch.stack((-sine, cosine), 1)), 1)
        turned = torch.einsum("nkl,nijl->nijk", turn, delta)
        turned = turned / self.std.clamp_min(1e-3)[:, None, None]
        mask = torch.exp(-0.5 * turned.pow(2).sum(-1))
        mask = mask / (mask.sum((1, 2), keepdim=True) + 1e-12)
        return (maps * mask).sum((2, 3)) + self.bias


class PlainNetwork(nn.Module):
    """The v2 configuration, for sessions of so many cells."""

    def __init__(self, cells: Sequence[int]) -> None:
        super().__init__()
        self.frontend = Front()
        self.convnet = nn.Module()
        self.convnet.blocks = nn.ModuleList(
            (
                Block(4, 64, (3, 5, 5), 3, 2, 1, 0.0, False),
                Block(64, 128, (3, 5, 5), 3, 1, 1, 0.1, True),
                Block(128, 256, (3, 3, 3), 2, 1, 2, 0.2, True),
            )
        )
        self.modulator = Modulator(256, 256)
        self.readouts = nn.ModuleList(Readout(256, count) for count in cells)

    def forward(self, stimulus: Tensor, behavior: Tensor) -> list[Tensor]:
        """Return the log-rates of each session."""
        x = self.frontend(stimulus)
        for block in self.convnet.blocks:
            x = block(x)
        x = self.modulator(x, behavior)
        return [readout(x) for readout in self.readouts]
