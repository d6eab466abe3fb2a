import pytest
import torch
from torch.nn import functional as F

from lightning_prune.neural.network.pointwise_conv import PointwiseConv3d


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 3, 2)])
def test_equals_torchs_convolution_with_its_gradients(stride):
    torch.manual_seed(0)
    conv = PointwiseConv3d(3, 5, stride).double()
    x = torch.randn(2, 3, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    expected = F.conv3d(x, conv.weight, stride=stride)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, conv.weight), cotangent)
    out = conv(x)
    torch.testing.assert_close(out, expected)
    for got, want in zip(
        torch.autograd.grad(out, (x, conv.weight), cotangent), wanted, strict=True
    ):
        torch.testing.assert_close(got, want)


def test_needs_no_gradient_of_its_input():
    conv = PointwiseConv3d(3, 5)
    x = torch.randn(1, 3, 2, 4, 4)
    conv(x).sum().backward()
    torch.testing.assert_close(conv.weight.grad[0].flatten(), x.sum((0, 2, 3, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_precision(dtype):
    conv = PointwiseConv3d(3, 5)
    x = torch.randn(1, 3, 2, 4, 4, requires_grad=True)
    with torch.autocast("cpu", dtype):
        out = conv(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), conv(x), atol=3e-2, rtol=3e-2)
    out.float().sum().backward()
    assert x.grad.dtype == conv.weight.grad.dtype == torch.float32
