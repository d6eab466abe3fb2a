import numpy as np
import pytest
import torch

from lightning_prune.functional import dissimilarity


def test_equals_numpy_and_is_exact_where_dot_products_are_not() -> None:
    points = np.random.default_rng(0).normal(size=(60, 2)) + 1000.0
    ours = dissimilarity(torch.from_numpy(points))
    expected = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert torch.equal(ours, ours.T)
    assert not ours.diagonal().any()


def test_rejects_other_shapes() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        dissimilarity(torch.zeros(3))
