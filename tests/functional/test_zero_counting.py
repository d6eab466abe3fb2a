"""Norms of kept channels against torch's own of all channels, in which the others are zeros."""

import pytest
import torch
import torch.nn.functional as F

from lightning_prune.functional.zero_counting import (
    deviation_norm_of_kept,
    group_norm_of_kept,
    layer_norm_of_kept,
    response_norm_of_kept,
    rms_norm_of_kept,
)

KEPT = torch.tensor([0, 1, 4, 6, 7])


def values(*shape, dtype=torch.float64, mean=0.5):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(1)) + mean).to(dtype)


def widened(kept, size=10, dim=-1):
    shape = list(kept.shape)
    shape[dim] = size
    return kept.new_zeros(shape).index_copy(dim, KEPT, kept)


@pytest.mark.parametrize("affine", ["neither", "weight", "bias", "both"])
@pytest.mark.parametrize("mean", [0.0, 0.5, 100.0])
def test_layer_norm_and_its_gradients_are_those_of_the_whole(affine, mean):
    x = values(3, 4, 5, mean=mean).requires_grad_()
    w = values(5).requires_grad_() if affine in ("weight", "both") else None
    b = values(5).requires_grad_() if affine in ("bias", "both") else None
    wide = [None if t is None else widened(t) for t in (w, b)]
    expected = F.layer_norm(widened(x), (10,), *wide)[..., KEPT]
    found = layer_norm_of_kept(x, 10, w, b)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    inputs = [t for t in (x, w, b) if t is not None]
    dy = values(3, 4, 5)
    for given, wanted in zip(
        torch.autograd.grad(found, inputs, dy), torch.autograd.grad(expected, inputs, dy),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(given, wanted, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(layer_norm_of_kept(x, 10, w, b), expected, rtol=0, atol=1e-10)


def test_layer_norm_keeps_its_digits_where_the_mean_is_large():
    x = values(64, 5, dtype=torch.float32, mean=1e3)
    wide = F.layer_norm(widened(x.double()), (10,))[..., KEPT]
    torch.testing.assert_close(layer_norm_of_kept(x, 10).double(), wide, rtol=0, atol=1e-5)


def test_layer_norm_has_first_and_second_derivatives():
    x, w, b = (values(*s).requires_grad_() for s in ((2, 5), (5,), (5,)))
    assert torch.autograd.gradcheck(lambda *t: layer_norm_of_kept(t[0], 8, *t[1:]), (x, w, b))
    assert torch.autograd.gradgradcheck(lambda *t: layer_norm_of_kept(t[0], 8, *t[1:]), (x, w, b))


def test_layer_norm_of_frozen_weights_and_of_frozen_inputs():
    x, w = values(2, 5), values(5)
    for frozen in (x, w):
        given = [t if t is frozen else t.clone().requires_grad_() for t in (x, w)]
        y = layer_norm_of_kept(given[0], 8, given[1])
        y.sum().backward()
        assert [t.grad is None for t in given] == [t is frozen for t in (x, w)]


def test_layer_norm_of_no_rows():
    assert layer_norm_of_kept(torch.zeros(0, 5, requires_grad=True), 8).shape == (0, 5)


def test_layer_norm_under_vmap_gives_each_samples_gradient():
    x, w = values(3, 4, 5), values(5)

    def loss(weight, sample):
        return layer_norm_of_kept(sample, 10, weight).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(w, x)
    one = w.clone().requires_grad_()
    expected = [torch.autograd.grad(loss(one, sample), one)[0] for sample in x]
    torch.testing.assert_close(each, torch.stack(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("eps", [None, 1e-3, 0.0])
@pytest.mark.parametrize("affine", [False, True])
def test_rms_norm_is_that_of_the_whole(eps, affine):
    x, w = values(3, 5), values(5) if affine else None
    expected = F.rms_norm(widened(x), (10,), None if w is None else widened(w), eps)[..., KEPT]
    torch.testing.assert_close(rms_norm_of_kept(x, 10, w, eps), expected, rtol=0, atol=1e-10)


def test_rms_norm_takes_the_eps_that_torch_takes_in_half_precision():
    x = torch.zeros(2, 5, dtype=torch.bfloat16)
    x[:, 0] = 1e-3
    expected = F.rms_norm(widened(x), (10,))[..., KEPT].float()
    torch.testing.assert_close(rms_norm_of_kept(x, 10), expected, rtol=1e-2, atol=0)


def test_deviation_norm_is_that_of_the_whole():
    x = values(3, 5)
    wide = widened(x)
    expected = (wide * torch.rsqrt(wide.var(-1, keepdim=True) + 1e-5))[..., KEPT]
    torch.testing.assert_close(deviation_norm_of_kept(x, 10), expected, rtol=0, atol=1e-10)


def test_response_norm_is_that_of_the_whole():
    x, w, b = values(2, 3, 4, 5), values(5), values(5)
    wide = widened(x)
    response = wide.norm(dim=(1, 2), keepdim=True)
    scale = response / (response.mean(-1, keepdim=True) + 1e-6)
    expected = (wide + widened(w) * wide * scale + widened(b))[..., KEPT]
    found = response_norm_of_kept(x, 10, w, b)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("space", [(), (3,), (3, 4)])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_group_norm_is_that_of_the_whole(groups, space):
    x, w, b = values(2, 5, *space), values(5), values(5)
    wide = F.group_norm(widened(x, dim=1), groups, widened(w), widened(b))
    group = KEPT // (10 // groups)
    found = group_norm_of_kept(x, group, groups, 10 // groups, w, b)
    torch.testing.assert_close(found, wide.index_select(1, KEPT), rtol=0, atol=1e-10)


def test_group_norm_of_equal_groups_is_that_of_the_whole():
    places = torch.tensor([0, 2, 3, 5, 7, 9, 10, 11])
    x = values(2, 8, 3)
    wide = x.new_zeros(2, 16, 3).index_copy(1, places, x)
    expected = F.group_norm(wide, 4).index_select(1, places)
    group = places // 4
    torch.testing.assert_close(group_norm_of_kept(x, group, 4, 4), expected, rtol=0, atol=1e-10)
    even = torch.tensor([0, 2, 4, 5, 8, 9, 13, 15])
    wide = x.new_zeros(2, 16, 3).index_copy(1, even, x)
    expected = F.group_norm(wide, 4).index_select(1, even)
    torch.testing.assert_close(group_norm_of_kept(x, 2, 4, 4), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype):
    x = values(2, 5, dtype=dtype)
    found = layer_norm_of_kept(x, 10, values(5, dtype=dtype))
    assert found.dtype == torch.float32
    same = layer_norm_of_kept(x.double(), 10, values(5, dtype=dtype).double())
    torch.testing.assert_close(found.double(), same, rtol=0, atol=1e-5)
