import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_prune.functional.top_k import keep_strongest


def reference(x, share):
    """Sort the magnitudes of each sample and channel."""
    out = np.zeros_like(x)
    places = int(np.prod(x.shape[2:]))
    count = max(1, int(np.floor(share * places)))
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            row = x[b, c].ravel()
            best = np.argsort(-np.abs(row), kind="stable")[:count]
            out[b, c].ravel()[best] = row[best]
    return out


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(2, 3, 5, 4), (1, 2, 1, 1), (2, 1, 7), (2, 2, 3, 2, 2)]),
    share=st.floats(0.001, 1.0),
    seed=st.integers(0, 10**6),
    last=st.booleans(),
)
def test_equals_sorting(shape, share, seed, last):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    expected = reference(x.numpy(), share)
    if last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    found = keep_strongest(x, share)
    assert found.shape == x.shape
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_reproduces_the_golden_vector(golden_vectors, share):
    arrays = np.load(golden_vectors / "14_csp_reset.npz")
    keys = [k for k in arrays.files if k.startswith("sparse_hw") and k.endswith(f"topk{share}")]
    assert keys
    for key in keys:
        x = torch.tensor(arrays["sparse_hw|x"])
        np.testing.assert_array_equal(keep_strongest(x, share).numpy(), arrays[key])


def test_all_places_are_the_input_itself():
    x = torch.randn(2, 3, 4, 4)
    assert keep_strongest(x, 1.0) is x


def test_ties_keep_exactly_k():
    found = keep_strongest(torch.ones(2, 3, 4, 5), 0.35)
    assert found.sum((2, 3)).unique().tolist() == [7.0]


def test_the_gradient_reaches_what_stays():
    x = torch.tensor([[[[1.0, -4.0], [3.0, 0.5]]]], requires_grad=True)
    keep_strongest(x, 0.5).square().sum().backward()
    assert x.grad.tolist() == [[[[0.0, -8.0], [6.0, 0.0]]]]
