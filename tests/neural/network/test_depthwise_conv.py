import pytest
import torch
from torch.nn import functional as F

from lightning_prune.neural.network.depthwise_conv import DepthwiseConv3d
from lightning_prune.neural.network.frames import stack_frames, unstack_frames

SETTINGS = [
    ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((3, 5, 4), (2, 2, 2), (1, 1, 1)),
    ((2, 3, 3), (1, 1, 1), (2, 2, 1)),
    ((1, 1, 3), (3, 1, 2), (1, 1, 2)),
    ((3, 2, 3), (2, 1, 1), (2, 2, 2)),
]


@pytest.mark.parametrize(("kernel", "stride", "dilation"), SETTINGS)
@pytest.mark.parametrize("stacked", [False, True])
def test_equals_torchs_convolution_with_its_gradients(kernel, stride, dilation, stacked):
    torch.manual_seed(0)
    conv = DepthwiseConv3d(4, kernel, stride, dilation).double()
    x = torch.randn(2, 4, 7, 9, 8, dtype=torch.float64)
    if stacked:
        x = unstack_frames(stack_frames(x), 2)
    x.requires_grad_()
    expected = F.conv3d(x, conv.weight, stride=stride, dilation=dilation, groups=4)
    cotangent = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, conv.weight), cotangent)
    out = conv(x)
    torch.testing.assert_close(out, expected)
    for got, want in zip(
        torch.autograd.grad(out, (x, conv.weight), cotangent), wanted, strict=True
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("of_x", [True, False])
def test_only_the_gradients_that_are_needed(of_x):
    conv = DepthwiseConv3d(2, (2, 3, 3))
    conv.weight.requires_grad_(not of_x)
    x = torch.randn(1, 2, 3, 4, 4, requires_grad=of_x)
    conv(x).sum().backward()
    assert (x.grad is not None) == of_x
    assert (conv.weight.grad is not None) != of_x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_precision(dtype):
    torch.manual_seed(0)
    conv = DepthwiseConv3d(4, (3, 3, 3))
    x = torch.randn(1, 4, 4, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype):
        out = conv(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), conv(x), atol=3e-2, rtol=3e-2)
    out.float().sum().backward()
    assert x.grad.dtype == conv.weight.grad.dtype == torch.float32
    conv_grad = torch.autograd.grad(conv(x).sum(), conv.weight)[0]
    torch.testing.assert_close(conv.weight.grad, conv_grad, atol=0.3, rtol=3e-2)
