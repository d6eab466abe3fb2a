import json
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from lightning_prune.functional import KMedoids, dissimilarity, kmedoids, kmedoids_sweep
from tests.golden_vectors import GoldenVectors


def blobs(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, 2, generator=generator, dtype=torch.float64) * 5
    return centres[torch.arange(n) % 6] + torch.randn(n, 2, generator=generator)


def assert_consistent(diss: torch.Tensor, found: KMedoids, k: int) -> None:
    """Labels are those of the nearest medoid, the loss belongs to them, no cluster is empty."""
    n = len(diss)
    assert found.medoids.tolist() == sorted(set(found.medoids.tolist()))
    assert len(found.medoids) == k
    assert torch.equal(found.labels[found.medoids], torch.arange(k))
    own = diss[torch.arange(n), found.medoids[found.labels]]
    assert torch.equal(own, diss[:, found.medoids].amin(dim=1))
    assert found.loss == pytest.approx(own.sum().item(), rel=1e-12, abs=1e-12)


def test_golden_small_problems_are_solved_exactly(golden_vectors: GoldenVectors) -> None:
    for case in json.loads((golden_vectors / "05_kmedoids_small.json").read_text())["cases"]:
        diss = torch.tensor(case["D"], dtype=torch.float64)
        k_values = [int(k) for k in case["by_k"]]
        swept = kmedoids_sweep(diss, k_values)
        for k, found in zip(k_values, swept, strict=True):
            optimum = case["by_k"][str(k)]["optimal_loss"]
            assert found.loss == pytest.approx(optimum, abs=1e-9), (case["n"], case["kind"], k)
            assert kmedoids(diss, k, seed=1).loss == pytest.approx(optimum, abs=1e-9)
            assert_consistent(diss, found, k)


def test_golden_large_problems(golden_vectors: GoldenVectors) -> None:
    cases = json.loads((golden_vectors / "05_kmedoids_large.json").read_text())["cases"]
    points = np.load(golden_vectors / "05_kmedoids_large_points.npz", allow_pickle=False)
    for name in points.files:
        mine = {case["k"]: case for case in cases if case["points"] == name}
        diss = dissimilarity(torch.from_numpy(points[name]))
        swept = kmedoids_sweep(diss, range(2, len(diss)))
        for k, case in mine.items():
            assert_consistent(diss, swept[k - 2], k)
            assert swept[k - 2].loss <= 1.005 * case["best_loss"], (name, k)
            assert kmedoids(diss, k).loss <= 1.02 * case["max_loss"], (name, k)


def test_no_swap_improves_the_result() -> None:
    diss = dissimilarity(blobs(40))
    for found in kmedoids_sweep(diss, [2, 5, 11, 30]):
        medoids = found.medoids.tolist()
        for i in range(len(medoids)):
            for candidate in set(range(40)) - set(medoids):
                other = [*medoids[:i], candidate, *medoids[i + 1 :]]
                assert diss[:, other].amin(dim=1).sum() >= found.loss - 1e-9


def test_extremes_are_exact() -> None:
    diss = dissimilarity(blobs(30))
    swept = kmedoids_sweep(diss, [1, 2, 29, 30])
    assert swept[0].loss == pytest.approx(diss.sum(dim=0).min().item())
    pairs = (diss[:, pair].amin(dim=1).sum().item() for pair in combinations(range(30), 2))
    assert swept[1].loss == pytest.approx(min(pairs))
    assert swept[2].loss == pytest.approx((diss + torch.eye(30) * 1e9).min().item())
    assert swept[3].loss == 0
    for k, found in zip([1, 2, 29, 30], swept, strict=True):
        assert_consistent(diss, found, k)


def test_loss_falls_with_every_further_medoid() -> None:
    losses = [found.loss for found in kmedoids_sweep(dissimilarity(blobs(80)), range(1, 81))]
    assert all(a > b for a, b in pairwise(losses))


def test_same_seed_same_clusters() -> None:
    diss = dissimilarity(blobs(100))
    first, again = (kmedoids_sweep(diss, range(2, 100), seed=3) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.medoids, b.medoids)
        assert torch.equal(a.labels, b.labels)
        assert a.loss == b.loss


@pytest.mark.parametrize("distinct", [1, 3])
def test_duplicates_leave_no_cluster_empty(distinct: int) -> None:
    diss = dissimilarity((torch.arange(12) % distinct).double()[:, None])
    for k, found in zip(range(1, 13), kmedoids_sweep(diss, range(1, 13)), strict=True):
        assert_consistent(diss, found, k)
        assert (found.loss == 0) == (k >= distinct)


def test_k_values_come_back_in_their_order() -> None:
    diss = dissimilarity(blobs(20))
    assert [len(found.medoids) for found in kmedoids_sweep(diss, [7, 3, 7])] == [7, 3, 7]


def test_rejects_what_does_not_fit() -> None:
    diss = dissimilarity(blobs(5))
    for k_values in ([], [0], [6]):
        with pytest.raises(ValueError, match=r"in 1\.\.5"):
            kmedoids_sweep(diss, k_values)
    with pytest.raises(ValueError, match="square"):
        kmedoids(diss[:3], 2)
    with pytest.raises(ValueError, match="NaN"):
        kmedoids(diss * torch.nan, 2)
    with pytest.raises(ValueError, match="negative"):
        kmedoids(-diss, 2)
    with pytest.raises(ValueError, match="zero diagonal"):
        kmedoids(diss + 1, 2)
    with pytest.raises(ValueError, match="symmetric"):
        kmedoids(diss + torch.ones(5, 5).triu(1), 2)
    with pytest.raises(ValueError, match="choose"):
        kmedoids(diss, 2, backend="pam")
