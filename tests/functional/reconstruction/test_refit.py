"""Refits against NumPy's least squares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.functional.reconstruction.refit import refit_weight


def data(groups: int = 1, n: int = 5, m: int = 3, rows: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(groups * 10 + n)
    x = torch.randn(groups, rows, n, generator=random, dtype=torch.float64) + 2
    y = torch.randn(groups, rows, m, generator=random, dtype=torch.float64)
    old = torch.randn(groups, m, n, generator=random, dtype=torch.float64)
    return x, y + x[..., :1] - 3 * x[..., -1:] + 7, old


def with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def refit(x: Tensor, y: Tensor, old: Tensor, ridge: float, shift: bool = False):
    if shift:
        x = with_ones(x)
    turned = x.transpose(1, 2)
    return refit_weight(turned @ x, turned @ y, old, ridge, shift=shift)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("shift", [False, True])
def test_a_tiny_ridge_gives_least_squares(groups: int, shift: bool):
    x, y, old = data(groups)
    weight, constant = refit(x, y, old, 1e-10, shift)
    assert weight.shape == old.shape
    assert constant.shape == (groups, 3)
    for g in range(groups):
        read = with_ones(x[g]) if shift else x[g]
        wanted = np.linalg.lstsq(read.numpy(), y[g].numpy(), rcond=None)[0]
        np.testing.assert_allclose(weight[g].T, wanted[:5], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(constant[g], wanted[5] if shift else np.zeros(3), rtol=1e-6)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_a_ridge_draws_towards_the_old_weight_and_leaves_the_constant_free(ridge: float):
    """The same as lstsq of rows that ask for the old weight, and of centred data."""
    x, y, old = data()
    mean_square = x.square().sum(1).mean()
    centred, wanted_y = x[0] - x[0].mean(0), y[0] - y[0].mean(0)
    pull = float((ridge * mean_square).sqrt())
    rows = np.concatenate([centred.numpy(), pull * np.eye(5)])
    targets = np.concatenate([wanted_y.numpy(), pull * old[0].T.numpy()])
    wanted = np.linalg.lstsq(rows, targets, rcond=None)[0]
    weight, constant = refit(x, y, old, ridge, shift=True)
    np.testing.assert_allclose(weight[0].T, wanted, rtol=1e-6)
    shift = (y[0].mean(0) - x[0].mean(0) @ weight[0].T).numpy()
    np.testing.assert_allclose(constant[0], shift, rtol=1e-6)


def test_an_infinite_ridge_changes_nothing():
    x, y, old = data()
    torch.testing.assert_close(refit(x, y, old, 1e12)[0], old)


def test_inputs_that_are_always_zero_keep_their_weights_and_do_not_matter():
    x, y, old = data()
    x[..., 2] = 0
    weight, constant = refit(x, y, old, 0.01, shift=True)
    assert torch.equal(weight[..., 2], old[..., 2])
    rest = [0, 1, 3, 4]
    without, same = refit(x[..., rest], y, old[..., rest], 0.01, shift=True)
    torch.testing.assert_close(weight[..., rest], without)
    torch.testing.assert_close(constant, same)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_without_any_input_the_constant_is_the_mean(scale: float):
    x, y, old = data()
    weight, constant = refit(torch.zeros_like(x), scale * y, old, 0.01, shift=True)
    assert torch.equal(weight, old)
    torch.testing.assert_close(constant, scale * y.mean(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_the_unit_of_the_inputs_does_not_matter(scale: float):
    x, y, old = data()
    weight, constant = refit(x, y, old, 0.01, shift=True)
    other, same = refit(scale * x, y, old / scale, 0.01, shift=True)
    torch.testing.assert_close(other * scale, weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(same, constant, rtol=1e-6, atol=1e-9)


def test_what_the_old_weight_gives_already_stays():
    x, _, old = data()
    weight, constant = refit(x, x @ old.transpose(1, 2), old, 0.1, shift=True)
    torch.testing.assert_close(weight, old)
    torch.testing.assert_close(constant, torch.zeros_like(constant), atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_fitted(value: float):
    x, y, old = data()
    x[0, 0, 0] = value
    assert refit(x, y, old, 0.01) is None
    x, y, old = data()
    y[0, 0, 0] = value
    assert refit(x, y, old, 0.01) is None
