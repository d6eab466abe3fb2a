"""Models of neurons: cores over time, and readouts whose weights are parameters of a session."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.scramble import scramble
from lightning_prune.testing import check_prunable

MOVIE = torch.randn(2, 1, 9, 10, 10, generator=torch.Generator().manual_seed(0))


class SeparableConv(nn.Module):
    """A 3-d convolution of a filter over time, of sines, times one over space."""

    def __init__(self, inputs: int, channels: int, frames: int, side: int) -> None:
        super().__init__()
        self.waves = nn.Parameter(torch.randn(channels, inputs, 2))
        self.space = nn.Parameter(torch.randn(channels, inputs, 1, side, side))
        steps = torch.arange(frames) / frames
        self.register_buffer("basis", torch.stack([steps.sin(), steps.cos()]))

    def forward(self, x: Tensor) -> Tensor:
        time = (self.waves[..., None] * self.basis).sum(2)[..., None, None]
        return F.conv3d(x, torch.einsum("oitxx,oixhw->oithw", time, self.space))


class GaussianMask(nn.Module):
    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(cells, 2))
        self.features = nn.Parameter(torch.randn(1, channels, 1, cells))

    def forward(self, x: Tensor) -> Tensor:
        place = torch.linspace(-1, 1, x.shape[-1])
        far = (place - self.mean[:, :1]).square()[:, None]
        far = far + (place - self.mean[:, 1:]).square()[:, :, None]
        masked = torch.einsum("bcthw,nhw->bctn", x, torch.exp(-far))
        return (masked * self.features).sum(1)


class Factorized(nn.Module):
    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.randn(36, cells))
        self.weights = nn.Parameter(torch.randn(channels, cells))

    def forward(self, x: Tensor) -> Tensor:
        masked = torch.matmul(x.flatten(3).permute(0, 2, 1, 3), self.mask).permute(0, 1, 3, 2)
        return (masked * self.weights.T[None, None]).sum(3)


class Point(nn.Module):
    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.rand(1, cells, 1, 2) - 0.5)
        self.features = nn.Parameter(torch.randn(1, channels, 1, cells))

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        grid = self.place.expand(len(frames), -1, -1, -1)
        found = F.grid_sample(frames, grid, align_corners=True).squeeze(-1)
        return (found * self.features.view(1, found.shape[1], -1)).sum(1)


class CoreReadout(nn.Module):
    """A core that all sessions share, and a readout for each."""

    def __init__(self, readout: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.norm = SeparableConv(1, 6, 3, 3), nn.BatchNorm3d(6)
        self.last = nn.Conv3d(6, 8, 3)
        self.readouts = nn.ModuleDict({"a": readout(8, 3), "b": readout(8, 4)})

    def forward(self, x: Tensor, key: str | None = None) -> Tensor:
        core = F.elu(self.last(F.elu(self.norm(self.first(x)))))
        chosen = [key] if key else list(self.readouts)
        return torch.cat([self.readouts[name](core) for name in chosen], -1)


@pytest.mark.parametrize("readout", [GaussianMask, Factorized, Point])
def test_readouts_of_all_sessions_follow_the_core(readout: type[nn.Module]):
    torch.manual_seed(0)
    model = CoreReadout(readout).eval()
    scramble(model)
    found = check_prunable(model, MOVIE)
    assert found.groups == 2
    groups = trace_groups(model, MOVIE)
    assert groups["last"].layers("consumer") == ("readouts.a", "readouts.b")
    assert groups["first"].layers("consumer") == ("last",)


def test_a_sum_without_weights_reads_nothing():
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.gain = nn.Conv3d(1, 4, 3), nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.last(x) * self.gain).sum(1)

    assert trace_groups(Summed(), MOVIE).refused == {"last": "nothing reads its channels"}
