import pytest
import torch

from lightning_prune.neural.network.channel_rms import normalize_channels


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3), (2, 4, 2, 3, 2)])
@pytest.mark.parametrize("shift", [True, False])
def test_gradients(shape, shift):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    gamma = torch.randn(4, dtype=torch.float64, requires_grad=True)
    beta = torch.randn(4, dtype=torch.float64, requires_grad=True) if shift else None
    assert torch.autograd.gradcheck(
        lambda x, gamma, beta: normalize_channels(x, gamma, beta, 1e-3), (x, gamma, beta)
    )


def test_the_layout_of_the_input_stays():
    x = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    out = normalize_channels(x, torch.ones(3), torch.zeros(3), 1e-4)
    assert out.stride() == x.stride()


def test_frozen_scale_has_no_gradient():
    gamma = torch.ones(3)
    x = torch.randn(2, 3, 4, requires_grad=True)
    normalize_channels(x, gamma, None, 1e-4).sum().backward()
    assert gamma.grad is None
    assert x.grad.isfinite().all()
