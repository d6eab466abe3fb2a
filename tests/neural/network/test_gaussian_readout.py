import math

import pytest
import torch

from lightning_prune.neural.network.gaussian_readout import GaussianReadout


@pytest.mark.parametrize("size", ["6x6", "7x5"])
def test_reproduces_the_reference(golden, size):
    case = f"readout_{size}"
    readout = GaussianReadout(8, 5)
    golden.check(case, readout)
    mask = golden.tensor(case, "mask")
    torch.testing.assert_close(readout.mask(*mask.shape[1:]), mask, atol=1e-6, rtol=1e-4)


def test_mask_against_the_formula():
    readout = GaussianReadout(2, 1)
    with torch.no_grad():
        readout.mean[0] = torch.tensor([0.5, -1.0])
        readout.std[0] = torch.tensor([1.5, 0.7])
        readout.theta[0] = 0.3
    expected = torch.zeros(4, 5, dtype=torch.float64)
    for i in range(4):
        for j in range(5):
            down, right = i - 1.5 - 0.5, j - 2 + 1.0
            u = math.cos(0.3) * down + math.sin(0.3) * right
            v = -math.sin(0.3) * down + math.cos(0.3) * right
            expected[i, j] = math.exp(-0.5 * (u**2 / 1.5**2 + v**2 / 0.7**2))
    expected /= expected.sum()
    torch.testing.assert_close(readout.mask(4, 5)[0].double(), expected, atol=1e-6, rtol=1e-5)


def test_reads_the_last_frame():
    readout = GaussianReadout(3, 4)
    x = torch.randn(2, 3, 5, 6, 6)
    assert torch.equal(readout(x), readout(x[:, :, -1]))


def test_a_mask_that_misses_every_pixel_has_finite_gradients():
    readout = GaussianReadout(3, 4)
    with torch.no_grad():
        readout.std[0] = -1.0
        readout.mean[0] = 0.25
    out = readout(torch.randn(2, 3, 6, 6))
    assert torch.equal(out[:, 0], torch.zeros(2))
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in readout.parameters())


def test_without_bias():
    assert GaussianReadout(3, 4, bias=False).bias is None
    assert GaussianReadout(3, 4, bias=False)(torch.zeros(1, 3, 6, 6)).abs().max() == 0


def test_refuses():
    with pytest.raises(ValueError, match="cells=0"):
        GaussianReadout(3, 0)
    with pytest.raises(ValueError, match="initial_std=0"):
        GaussianReadout(3, 4, initial_std=0)
