import json
import math
from typing import Any

import pytest
import torch

from lightning_prune.functional import dissimilarity, mean_simplified_silhouette
from tests.golden_vectors import GoldenVectors


def brute_force(points: list[list[float]], medoids: list[int], labels: list[int], f: Any) -> float:
    values = []
    for point, label in zip(points, labels, strict=True):
        away = [math.dist(point, points[m]) for m in medoids]
        a = away.pop(label)
        if a > 0:
            values.append((f(away) - a) / max(a, f(away)))
    return sum(values) / len(values) if values else 1.0


def compare(case: dict[str, Any], points: list[list[float]]) -> None:
    diss = dissimilarity(torch.tensor(points, dtype=torch.float64))
    medoids, labels = torch.tensor(case["medoids"]), torch.tensor(case["labels"])
    mean = mean_simplified_silhouette(diss, medoids, labels)
    nearest = mean_simplified_silhouette(diss, medoids, labels, other="nearest")
    assert mean == pytest.approx(case["mss_mean_other_exact"], abs=1e-9)
    assert nearest == pytest.approx(case["mss_min_other_bruteforce"], abs=1e-9)
    if case["n_excluded_reference"] == case["n_excluded_exact"]:
        # The reference's dot products shift single distances by about 1e-8 even then.
        assert mean == pytest.approx(case["mss_mean_other_reference"], abs=1e-6)


def test_golden_cases(golden_vectors: GoldenVectors) -> None:
    for case in json.loads((golden_vectors / "02_mss_cases.json").read_text())["cases"]:
        compare(case, case["points"])


def test_golden_curves(golden_vectors: GoldenVectors) -> None:
    for curve in json.loads((golden_vectors / "02_mss_curves.json").read_text())["curves"]:
        for row in curve["rows"]:
            compare(row, curve["points"])


def test_equals_brute_force() -> None:
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    medoids, labels = [3, 7, 20], [i % 3 for i in range(30)]
    for other, f in (("mean", lambda d: sum(d) / len(d)), ("nearest", min)):
        ours = mean_simplified_silhouette(
            dissimilarity(points), torch.tensor(medoids), torch.tensor(labels), other
        )
        assert ours == pytest.approx(brute_force(points.tolist(), medoids, labels, f), abs=1e-12)


def test_is_one_where_every_point_is_a_medoid() -> None:
    diss = dissimilarity(torch.arange(4.0)[:, None])
    assert mean_simplified_silhouette(diss, torch.arange(4), torch.arange(4)) == 1.0


def test_rejects_what_does_not_fit() -> None:
    diss, two = torch.zeros(3, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="at least 2"):
        mean_simplified_silhouette(diss, two[:1], torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(n, n\) and \(n,\)"):
        mean_simplified_silhouette(diss, two, two)
    with pytest.raises(ValueError, match="choose"):
        mean_simplified_silhouette(diss, two, torch.tensor([0, 1, 1]), other="median")
