import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.neural.network.weight_norm_conv import WeightNormConv3d


def test_equals_torchs_weight_norm_with_its_gradients():
    torch.manual_seed(0)
    reference = nn.utils.parametrizations.weight_norm(nn.Conv3d(3, 5, (2, 3, 3)), dim=0)
    conv = WeightNormConv3d(3, 5, (2, 3, 3))
    parameters = reference.parametrizations.weight
    parameters.original0.data.uniform_(0.5, 2.0)
    conv.weight.data.copy_(parameters.original1)
    conv.gain.data.copy_(parameters.original0.flatten())
    conv.bias.data.copy_(reference.bias)
    x = torch.randn(2, 3, 4, 5, 5)
    out, expected = conv(x), reference(x)
    torch.testing.assert_close(out, expected)
    cotangent = torch.randn_like(out)
    (out * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    torch.testing.assert_close(conv.weight.grad, parameters.original1.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        conv.gain.grad, parameters.original0.grad.flatten(), atol=1e-4, rtol=1e-4
    )


def test_starts_as_an_ordinary_convolution():
    conv = WeightNormConv3d(3, 5, 3, stride=2, padding=1)
    x = torch.randn(1, 3, 5, 7, 7)
    expected = F.conv3d(x, conv.weight, conv.bias, stride=2, padding=1)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("gain", [0.0, 1.5])
def test_a_filter_of_zeros_stays_zero(gain):
    conv = WeightNormConv3d(2, 3, 1, bias=False)
    with torch.no_grad():
        conv.weight[1] = 0.0
        conv.gain[1] = gain
    out = conv(torch.randn(2, 2, 1, 2, 2))
    assert torch.equal(out[:, 1], torch.zeros_like(out[:, 1]))
    out.square().sum().backward()
    assert torch.equal(conv.weight.grad[1], torch.zeros_like(conv.weight[1]))
    assert conv.gain.grad[1] == 0
    assert conv.weight.grad.isfinite().all()
    assert conv.gain.grad.isfinite().all()


def test_reset_gain_after_new_weights():
    conv = WeightNormConv3d(2, 3, 1)
    nn.init.constant_(conv.weight, 2.0)
    conv.reset_gain()
    torch.testing.assert_close(conv.filters(), conv.weight)
    torch.testing.assert_close(conv.gain, torch.full((3,), 8.0**0.5))
