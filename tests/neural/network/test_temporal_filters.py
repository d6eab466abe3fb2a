import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune.neural.network.temporal_filters import TemporalFilters


@pytest.mark.parametrize(
    ("filters", "taps", "frames"), [(4, 16, 25), (3, 5, 5), (1, 1, 4), (2, 3, 9)]
)
def test_equals_torchs_convolution_with_its_gradients(filters, taps, frames):
    torch.manual_seed(0)
    conv = TemporalFilters(filters, taps).double()
    x = torch.randn(3, 1, frames, 4, 5, dtype=torch.float64, requires_grad=True)
    expected = F.conv3d(x, conv.weight)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, conv.weight), cotangent)
    out = conv(x)
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad(out, (x, conv.weight), cotangent)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_counts_the_macs_of_the_convolution():
    conv, x = TemporalFilters(4, 16), torch.randn(2, 1, 25, 3, 5)
    with FlopCounterMode(display=False) as ours, torch.no_grad():
        conv(x)
    with FlopCounterMode(display=False) as plain, torch.no_grad():
        F.conv3d(x, conv.weight)
    assert ours.get_total_flops() == plain.get_total_flops() > 0


def test_needs_no_gradient_of_its_input():
    conv, x = TemporalFilters(2, 3), torch.randn(2, 1, 5, 4, 4)
    conv(x).sum().backward()
    sums = x.sum((0, 1, 3, 4)).unfold(0, 3, 1).sum(0)
    torch.testing.assert_close(conv.weight.grad.flatten(1), sums.expand(2, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_precision(dtype):
    conv, x = TemporalFilters(2, 3), torch.randn(2, 1, 5, 4, 4, requires_grad=True)
    with torch.autocast("cpu", dtype):
        out = conv(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), conv(x), atol=3e-2, rtol=3e-2)
    out.float().sum().backward()
    assert x.grad.dtype == conv.weight.grad.dtype == torch.float32
