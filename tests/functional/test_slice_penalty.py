"""The slice penalty: golden vectors, autograd against the closed form, a loop in NumPy."""

import json

import numpy as np
import pytest
import torch

from lightning_prune.functional.slice_penalty import LEAST_NORM, slice_gradient, slice_penalty
from lightning_prune.functional.slices import slice_norms
from tests.golden_vectors import GoldenVectors


def test_golden_vectors(golden_vectors: GoldenVectors):
    cases = json.loads((golden_vectors / "09_slices.json").read_text())["cases"]
    arrays = np.load(golden_vectors / "09_slices.npz")
    variants = {"all": False, "disable_first": True, "zero_input_channel_1": False}
    seen = 0
    for case in cases:
        for variant, first in variants.items():
            name = f"{case['key']}|reg_grad|{variant}"
            if name not in arrays:
                continue
            weight = torch.from_numpy(arrays[f"{case['key']}|weight"].copy())
            if variant == "zero_input_channel_1":
                weight[:, 1] = 0
            weight.requires_grad_()
            penalty = slice_penalty(weight, case["block_size"], case["reg"], first)
            penalty.value.backward()
            closed = slice_gradient(weight.detach(), case["block_size"], case["reg"], first)
            for gradient in (weight.grad, closed):
                np.testing.assert_allclose(gradient, arrays[name], rtol=1e-4, atol=1e-9)
            value = case[f"reg_value_{variant}"]
            assert penalty.value.item() == pytest.approx(value, rel=1e-6)
            seen += 1
    assert seen == 23


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", [(8, 3), (8, 2, 5), (8, 3, 3, 3), (4, 2, 3, 1, 2)], ids=str)
def test_autograd_closed_form_and_the_sum_of_logarithms_agree(shape, first):
    torch.manual_seed(1)
    weight = torch.randn(shape, dtype=torch.float64)
    weight[:, 0] = 0
    weight.requires_grad_()
    penalty = slice_penalty(weight, 4, 0.3, first)
    penalty.value.backward()
    assert torch.allclose(weight.grad, slice_gradient(weight, 4, 0.3, first), rtol=1e-12)

    places = list(np.ndindex(shape[0] // 4, *shape[1:]))
    if first:
        places = [p for p in places if len(p) > 2 and p[-1] != 0]
    values = weight.detach().numpy()
    norms = [np.linalg.norm(values[(slice(p[0], None, shape[0] // 4), *p[1:])]) for p in places]
    alive = [norm for norm in norms if norm > 0]
    assert penalty.slices == len(places)
    assert penalty.nonzero.item() == len(alive)
    assert penalty.value.item() == pytest.approx(0.3 * len(alive))
    assert penalty.log_sum.item() == pytest.approx(np.log(alive).sum())
    # The numerical gradient of reg * sum log |s|, at one weight that counts.
    index = (shape[0] - 1, 1, *[n - 1 for n in shape[2:]])
    if not first or (shape[-1] > 1 and len(shape) > 2):
        step = torch.zeros_like(weight)
        step[index] = 1e-6
        sums = [slice_penalty(weight.detach() + s, 4, 1.0, first).log_sum for s in (step, -step)]
        numerical = 0.3 * (sums[0] - sums[1]) / 2e-6
        assert weight.grad[index].item() == pytest.approx(numerical.item(), rel=1e-5)


def test_a_slice_that_has_all_but_vanished_is_not_thrown_back():
    """The exact gradient would be reg / |s|: 1e14 here."""
    weight = torch.full((2, 1), 1e-14)
    gradient = slice_gradient(weight, 2)
    assert gradient.max().item() == pytest.approx(1e-14 / LEAST_NORM**2)
    at = torch.full((2, 1), LEAST_NORM)  # the norm is sqrt(2) times the limit: exact again
    assert slice_gradient(at, 2).max().item() == pytest.approx(LEAST_NORM / (2 * LEAST_NORM**2))
    for value in (1e-14, LEAST_NORM / 3, LEAST_NORM):
        leaf = torch.full((2, 1), value, dtype=torch.float64, requires_grad=True)
        slice_penalty(leaf, 2).value.backward()
        assert torch.allclose(leaf.grad, slice_gradient(leaf, 2), rtol=1e-12)


def test_half_precision_norms_do_not_overflow():
    weight = torch.full((8, 2), 300.0, dtype=torch.float16)  # squares exceed 65504
    assert slice_gradient(weight, 8).dtype == torch.float16
    expected = 1 / (8 * 300)
    assert slice_gradient(weight, 8).float().max().item() == pytest.approx(expected, rel=1e-3)
    assert slice_norms(weight, 8).max().item() == pytest.approx(300 * 8**0.5)


def test_descending_it_makes_slices_vanish_together():
    """Weights of one slice fall together; a large slice is hardly moved."""
    weight = torch.tensor([[0.3, 2.0], [0.4, 2.0]], requires_grad=True)
    optimizer = torch.optim.SGD([weight], 1.0)
    for _ in range(40):
        optimizer.zero_grad()
        slice_penalty(weight, 2, 2.5e-3).value.backward()
        optimizer.step()
    small, large = slice_norms(weight, 2)[0].tolist()
    assert small < 0.25
    assert large > 2.78
    assert (weight[0, 0] / weight[1, 0]).item() == pytest.approx(0.75, rel=1e-3)
