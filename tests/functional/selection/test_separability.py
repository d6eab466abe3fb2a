import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch

from lightning_prune.functional import class_moments, jeffries_matusita, separability_matrix
from tests.golden_vectors import GoldenVectors


def moments_of(samples: list[float]) -> tuple[int, float, float]:
    """Count, mean and variance as the package computes them from samples."""
    values = torch.tensor(samples, dtype=torch.float64)[:, None]
    moments = class_moments(values, torch.zeros(len(samples), dtype=torch.int64), 1)
    return len(samples), moments.mean.item(), moments.variance.item()


def distance(p: tuple[int, float, float], q: tuple[int, float, float]) -> float:
    count, mean, variance = torch.tensor([p, q], dtype=torch.float64).T
    return separability_matrix(mean[None], variance[None], count).item()


def test_golden_pairs(golden_vectors: GoldenVectors) -> None:
    cases = json.loads((golden_vectors / "01_jm_pairs.json").read_text())["cases"]
    for case in cases:
        intended = case.get("jm_intended", case["jm"])
        ours = distance(moments_of(case["p"]), moments_of(case["q"]))
        assert ours == pytest.approx(intended, abs=1e-12), case["tag"]


def test_golden_pairs_from_recorded_moments(golden_vectors: GoldenVectors) -> None:
    cases = json.loads((golden_vectors / "01_jm_pairs.json").read_text())["cases"]
    for case in cases:
        p, q = ([value or 0.0 for value in case[key]] for key in ("p_moments", "q_moments"))
        assert distance(tuple(p), tuple(q)) == pytest.approx(case["jm"], abs=1e-12), case["tag"]


@pytest.mark.parametrize("name", ["K3", "K10", "K20"])
def test_golden_matrices(golden_vectors: GoldenVectors, name: str) -> None:
    arrays = np.load(golden_vectors / f"01_separability_{name}.npz", allow_pickle=False)
    mean, variance, counts = (
        torch.from_numpy(arrays[key]) for key in ("mean", "population_variance", "counts")
    )
    matrix = separability_matrix(mean, variance, counts)
    np.testing.assert_allclose(matrix, arrays["separability"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["K3", "K10", "K20"])
def test_golden_matrices_from_samples(golden_vectors: GoldenVectors, name: str) -> None:
    """The whole way from samples, each channel with counts of its own, to separability."""
    arrays = np.load(golden_vectors / f"01_separability_{name}.npz", allow_pickle=False)
    counts = arrays["counts"]
    pieces = np.split(arrays["samples"], counts.ravel().cumsum()[:-1])
    for channel, row in enumerate(counts):
        lists = pieces[channel * len(row) : (channel + 1) * len(row)]
        labels = torch.arange(len(row)).repeat_interleave(torch.from_numpy(row))
        samples = torch.from_numpy(np.concatenate(lists))[:, None]
        moments = class_moments(samples, labels, len(row))
        matrix = separability_matrix(moments.mean, moments.variance, moments.count)
        np.testing.assert_allclose(matrix[0], arrays["separability"][channel], rtol=0, atol=1e-12)


def test_equals_the_formula_in_plain_python() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    variance = torch.rand(6, 9, generator=generator, dtype=torch.float64)
    variance[0, 3] = 0.0
    count = torch.tensor([5, 4, 0, 3, 2, 9, 1, 8, 7])
    matrix = separability_matrix(mean, variance, count)
    for c in range(6):
        for p, (a, b) in enumerate(combinations(range(9), 2)):
            sa, sb = (math.sqrt(variance[c, k]) or 1e-10 for k in (a, b))
            total = sa**2 + sb**2
            exponent = (mean[c, a] - mean[c, b]).item() ** 2 / total / 4
            exponent += math.log(total / (2 * sa * sb)) / 2
            expected = 0.0 if 2 in (a, b) else 2 * (1 - math.exp(-exponent))
            assert matrix[c, p].item() == pytest.approx(expected, abs=1e-12)


def test_pieces_do_not_show() -> None:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(300, 40, generator=generator)
    variance = torch.rand(300, 40, generator=generator)
    whole = separability_matrix(mean, variance, torch.ones(40))
    for row in (0, 83, 84, 85, 299):
        alone = separability_matrix(mean[row : row + 1], variance[row : row + 1], torch.ones(40))
        assert torch.equal(whole[row], alone[0])


def test_is_a_bounded_symmetric_distance() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 1000, generator=generator, dtype=torch.float64) * 10
    va, vb = torch.rand(2, 1000, generator=generator, dtype=torch.float64)
    forth, back = jeffries_matusita(a, va, b, vb), jeffries_matusita(b, vb, a, va)
    torch.testing.assert_close(forth, back, rtol=0, atol=1e-15)
    assert forth.min() >= 0
    assert forth.max() <= 2
    assert not jeffries_matusita(a, va, a, va).any()


def test_rejects_what_does_not_fit() -> None:
    ones = torch.ones(4, 3)
    with pytest.raises(ValueError, match="background as a second class"):
        separability_matrix(ones[:, :1], ones[:, :1], torch.ones(1))
    with pytest.raises(ValueError, match="pass both"):
        separability_matrix(ones, ones[:2], torch.ones(3))
    with pytest.raises(ValueError, match="count has shape"):
        separability_matrix(ones, ones, torch.ones(4))
    with pytest.raises(ValueError, match="overflow"):
        separability_matrix(ones * torch.nan, ones, torch.ones(3))
    with pytest.raises(ValueError, match="population variances"):
        separability_matrix(ones, -ones, torch.ones(3))
