import pytest
import torch
from torch import nn

from lightning_prune.neural.network.temporal_conv import TemporalConv, gaussian_derivatives


@pytest.mark.parametrize("taps", [16, 5])
def test_reproduces_the_reference(golden, taps):
    golden.check(f"tempconv_k{taps}", TemporalConv(taps, 4))


@pytest.mark.parametrize("taps", [16, 5])
def test_starts_as_the_published_kernels(golden, taps):
    first = golden.tensor(f"tempconv_k{taps}", "init_kernels_first3")
    weight = TemporalConv(taps, 4).conv.weight.detach()
    torch.testing.assert_close(weight[:3].view_as(first), first, atol=1e-6, rtol=1e-5)


def test_kernels_are_derivatives_of_a_gaussian():
    taps = 31
    filters = gaussian_derivatives(taps, 4).double()
    time = torch.linspace(-15, 15, taps, dtype=torch.float64, requires_grad=True)
    value = torch.exp(-time.square() / 2 / (taps / 6) ** 2)
    for row in filters:
        torch.testing.assert_close(row, (value / value.norm()).detach(), atol=1e-6, rtol=1e-5)
        (value,) = torch.autograd.grad(value.sum(), time, create_graph=True)


def test_one_channel_is_one_plain_convolution():
    front = TemporalConv(16, 4)
    assert isinstance(front.conv, nn.Conv3d)
    assert front.conv.weight.shape == (4, 1, 16, 1, 1)
    x = torch.randn(2, 1, 25, 3, 3, requires_grad=True)
    out = front(x)
    torch.testing.assert_close(out, torch.conv3d(x, front.conv.weight))
    # One step of the graph, so that its channels are found.
    assert out.grad_fn.name() == "_FiltersBackward"


def test_refuses():
    with pytest.raises(ValueError, match="stimulus of 10 frames is shorter than the 16 taps"):
        TemporalConv()(torch.zeros(1, 1, 10, 2, 2))
    with pytest.raises(ValueError, match="init='gauss': pass 'gaussian_derivatives' or 'default'"):
        TemporalConv(init="gauss")
    with pytest.raises(ValueError, match="kernel_size=0"):
        TemporalConv(0)
