"""Layers of more operands than a linear one: bilinear, recurrent, spectral."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from lightning_prune.graph.trace import trace_groups
from lightning_prune.testing import check_prunable


class Pair(nn.Module):
    """Two readings of one input, joined by a bilinear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(8, 12)
        self.both, self.head = nn.Bilinear(16, 12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.both(self.a(x).relu(), self.b(x).relu()).relu())


class Spectral(nn.Module):
    """A Fourier layer beside a pointwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.local = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1)
        self.weight = nn.Parameter(torch.randn(16, 12, 8, 5, dtype=torch.cfloat) * 0.1)
        self.head = nn.Conv2d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        spectrum = torch.einsum("bixy,ioxy->boxy", torch.fft.rfft2(x), self.weight)
        return self.head((torch.fft.irfft2(spectrum, s=x.shape[-2:]) + self.local(x)).relu())


class Series(nn.Module):
    """A recurrent layer between linear ones."""

    def __init__(self, kind: type[nn.RNNBase], **sizes: int) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Linear(5, 8), kind(8, 12, batch_first=True, **sizes)
        width = (1 + sizes.get("bidirectional", False)) * (sizes.get("proj_size") or 12)
        self.join, self.head = nn.Linear(width, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(self.rnn(self.embed(x).relu())[0]).relu())


def test_a_bilinear_layer_reads_two_groups_and_makes_one():
    net, x = Pair(), torch.zeros(2, 8)
    groups = trace_groups(net, x)
    assert {name: group.layers("consumer") for name, group in groups.items()} == {
        "a": ("both",), "b": ("both",), "both": ("head",),
    }  # fmt: skip
    found = check_prunable(net, x)
    assert (found.macs_before, found.macs_after) == (2 * (128 + 96 + 30), 2 * (64 + 48 + 15))


def test_complex_weights_are_cut_with_the_real_ones():
    net, x = Spectral(), torch.zeros(1, 3, 8, 8)
    assert {name: group.channels for name, group in trace_groups(net, x).items()} == {
        "lift": 16, "": 12,
    }  # fmt: skip
    assert check_prunable(net, x).difference < 1e-5


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(
    ("kind", "projection"), [(nn.RNN, 0), (nn.GRU, 0), (nn.LSTM, 0), (nn.LSTM, 4)]
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_all_layers_and_directions_share_their_hidden_channels(kind, projection, both, layers):
    sizes = {"proj_size": projection} if projection else {}
    net = Series(kind, num_layers=layers, bidirectional=both, **sizes)
    groups = trace_groups(net, torch.zeros(2, 4, 5))
    expected = {"embed": 8, "rnn": 12, "join": 6} | ({"rnn:2": 4} if projection else {})
    assert {name: group.channels for name, group in groups.items()} == expected
    found = check_prunable(net, torch.zeros(2, 4, 5))
    assert found.difference < 1e-5
    assert found.macs_after < 0.3 * found.macs_before


def test_a_model_with_the_older_weight_norm_can_be_copied_after_a_trace():
    with pytest.warns(FutureWarning):
        net = nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(2, 3)
    trace_groups(net, x)
    torch.testing.assert_close(copy.deepcopy(net)(x), net(x))


def test_a_reshape_of_no_values_keeps_the_labels_of_channels():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 12, 1), nn.Linear(48, 6)
            self.c = nn.Linear(6, 2)

        def forward(self, x):
            maps = self.a(x)
            none = maps[:0].reshape(0, 48)  # a detector that finds nothing
            return self.c(self.b(torch.cat([maps.flatten(1), none])))

    groups = trace_groups(Boxes(), torch.zeros(2, 3, 2, 2))
    assert [(g.name, g.channels) for g in groups.values()] == [("a", 12), ("b", 6)]
