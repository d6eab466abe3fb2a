import json

import numpy as np
import pytest
import torch

from lightning_prune.neural.functional.poisson_loss import poisson_loss


@pytest.mark.parametrize("case", ["loss0", "loss1"])
@pytest.mark.parametrize(
    ("mask", "name"), [("dfs", "mask2d"), ("dfs_1d", "mask1d"), (None, "nomask")]
)
def test_equals_the_golden_vectors(golden_vectors, case, mask, name):
    arrays = np.load(golden_vectors / "11_visioncore.npz")
    cases = json.loads((golden_vectors / "11_visioncore.json").read_text())
    expected = _find(cases, case)[f"log_input_True_{name}"]
    log_rate = torch.tensor(arrays[f"{case}|rate_pred"]).log()
    weights = None if mask is None else torch.tensor(arrays[f"{case}|{mask}"])
    loss = poisson_loss(log_rate, torch.tensor(arrays[f"{case}|obs"]), weights)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def _find(tree, case):
    if isinstance(tree, dict):
        if isinstance(tree.get(case), dict):
            return tree[case]
        if tree.get("case") == case or tree.get("name") == case:
            return tree
    for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        found = _find(each, case)
        if found is not None:
            return found
    return None


def test_masked_places_may_hold_anything_and_get_no_gradient():
    log_rate = torch.tensor([[0.5, 200.0], [-1.0, torch.nan]], requires_grad=True)
    spikes = torch.tensor([[2.0, torch.nan], [0.0, torch.inf]])
    mask = torch.tensor([[True, False], [True, False]])
    loss = poisson_loss(log_rate, spikes, mask)
    expected = np.mean([np.exp(0.5) - 2 * 0.5, np.exp(-1.0)])
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    gradient = torch.tensor([[np.exp(0.5) - 2, 0], [np.exp(-1.0), 0]]) / 2
    torch.testing.assert_close(log_rate.grad, gradient.float())


@pytest.mark.parametrize("mask", [torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2)])
def test_nothing_left_is_zero_with_a_gradient_of_zero(mask):
    log_rate = torch.randn(2, 3, requires_grad=True)
    loss = poisson_loss(log_rate, torch.ones(2, 3), mask)
    loss.backward()
    assert loss.item() == 0
    assert not log_rate.grad.any()


def test_no_sample_is_zero():
    log_rate = torch.zeros(0, 3, requires_grad=True)
    loss = poisson_loss(log_rate, torch.zeros(0, 3))
    assert loss.item() == 0
    loss.backward()


def test_half_precision_is_summed_in_single():
    log_rate, spikes = torch.full((4096, 8), 2.0), torch.ones(4096, 8)
    whole = poisson_loss(log_rate, spikes)
    for dtype in (torch.float16, torch.bfloat16):
        loss = poisson_loss(log_rate.to(dtype), spikes)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(whole.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((2, 3), (3, 2), None), "one log-rate for every count"),
        (((2, 3), (2, 3), (3,)), "one value for every count, or one for every row"),
    ],
)
def test_shapes_that_do_not_fit(shapes, words):
    log_rate, spikes, mask = (None if each is None else torch.ones(each) for each in shapes)
    with pytest.raises(ValueError, match=words):
        poisson_loss(log_rate, spikes, mask)
