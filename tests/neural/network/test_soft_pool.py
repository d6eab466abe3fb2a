import pytest
import torch
from torch.nn import functional as F

from lightning_prune.neural.network.soft_pool import blur, soft_pool


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 3, 2, 7, 5), (1, 2, 1, 6, 6)])
def test_soft_pool_against_brute_force(size, shape):
    torch.manual_seed(0)
    x = 3 * torch.randn(shape, dtype=torch.float64)
    out = soft_pool(x, size)
    rows, columns = shape[3] // size, shape[4] // size
    assert out.shape == (*shape[:3], rows, columns)
    for i in range(rows):
        for j in range(columns):
            window = x[..., i * size : (i + 1) * size, j * size : (j + 1) * size].flatten(3)
            expected = (window.softmax(3) * window).sum(3)
            torch.testing.assert_close(out[..., i, j], expected)


def test_gradients_of_pool_and_blur():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_pool, x)
    assert torch.autograd.gradcheck(lambda x: soft_pool(x, 3), x)
    assert torch.autograd.gradcheck(blur, x)


def test_large_values_do_not_overflow():
    x = torch.tensor([1e4, -1e4, 9999.0, 0.0]).view(1, 1, 1, 2, 2).requires_grad_()
    out = soft_pool(x)
    expected = (1e4 + 9999.0 / torch.e) / (1 + 1 / torch.e)
    assert out.item() == pytest.approx(expected, rel=1e-6)
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_blur_is_a_depthwise_convolution():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 7, 5)
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = (torch.outer(taps, taps) / 16).expand(3, 1, 1, 3, 3)
    torch.testing.assert_close(blur(x), F.conv3d(x, kernel, padding=(0, 1, 1), groups=3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = torch.randn(1, 2, 1, 4, 4)
    out = soft_pool(blur(x.to(dtype)))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), soft_pool(blur(x)), atol=2e-2, rtol=2e-2)


def test_small_frames_are_refused():
    with pytest.raises(ValueError, match="frames of 1 x 4 pixels"):
        soft_pool(torch.zeros(1, 1, 1, 1, 4))
