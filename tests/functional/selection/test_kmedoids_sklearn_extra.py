"""The optional backend; CI runs this file in an environment that has scikit-learn-extra."""

import importlib.util

import pytest
import torch

from lightning_prune.functional import dissimilarity, kmedoids, kmedoids_sweep, select_channels

installed = importlib.util.find_spec("sklearn_extra") is not None


def points(n: int) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.skipif(installed, reason="scikit-learn-extra is installed")
def test_missing_package_is_named() -> None:
    with pytest.raises(ImportError, match=r"lightning-prune\[sklearn-extra\].*numpy < 2"):
        kmedoids(dissimilarity(points(8)), 3, backend="sklearn_extra")


@pytest.mark.skipif(not installed, reason="scikit-learn-extra is not installed")
def test_agrees_with_the_native_backend() -> None:
    diss = dissimilarity(points(48))
    k_values = range(1, 49)
    theirs = kmedoids_sweep(diss, k_values, backend="sklearn_extra")
    ours = kmedoids_sweep(diss, k_values)
    for k, a, b in zip(k_values, theirs, ours, strict=True):
        assert len(a.medoids) == k
        assert torch.equal(a.labels[a.medoids], torch.arange(k))
        own = diss[torch.arange(48), a.medoids[a.labels]]
        assert a.loss == pytest.approx(own.sum().item())
        assert b.loss <= a.loss * (1 + 1e-9)
        assert a.loss <= b.loss * 1.06  # PAM stops in a local optimum


@pytest.mark.skipif(not installed, reason="scikit-learn-extra is not installed")
def test_selects_channels() -> None:
    matrix = torch.rand(24, 10, generator=torch.Generator().manual_seed(1))
    chosen = [
        select_channels(matrix, matrix.sum(1), backend="sklearn_extra", embedding="pca")
        for _ in range(2)
    ]
    assert 6 <= chosen[0].k <= 12
    assert len(chosen[0].keep) == chosen[0].k
    assert torch.equal(chosen[0].keep, chosen[1].keep)
