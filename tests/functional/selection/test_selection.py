import json

import pytest
import torch

from lightning_prune.functional import (
    choose_channels,
    cluster_channels,
    filter_norm,
    find_knee,
    heaviest_per_cluster,
    mean_simplified_silhouette,
    select_channels,
)
from lightning_prune.functional.selection.dissimilarity import dissimilarity
from tests.golden_vectors import GoldenVectors


def layer(channels: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(channels, 21, generator=generator, dtype=torch.float64) * 2
    return matrix, torch.rand(channels, generator=generator, dtype=torch.float64)


def test_golden_choice_within_clusters(golden_vectors: GoldenVectors) -> None:
    vectors = json.loads((golden_vectors / "04_weighted_selection.json").read_text())
    for case in vectors["cases"]:
        kept = heaviest_per_cluster(torch.tensor(case["labels"]), torch.tensor(case["weights"]))
        assert kept.tolist() == case["kept_in_medoid_order"], case["tag"]
        assert kept.sort().values.tolist() == case["kept_sorted"], case["tag"]


def test_golden_choice_by_filter_norms(golden_vectors: GoldenVectors) -> None:
    vectors = json.loads((golden_vectors / "04_weighted_selection.json").read_text())
    case = vectors["quirk_4d_weights"]
    weight, labels = torch.tensor(case["weights_4d"]), torch.tensor(case["labels"])
    for p in (1, 2):
        kept = heaviest_per_cluster(labels, filter_norm(weight, p))
        assert kept.tolist() == case[f"intended_kept_l{p}"]
    matrix, _ = layer(14)
    with pytest.raises(ValueError, match="one number for each of the 14 channels"):
        select_channels(matrix, weight)  # the reference silently returns the medoids


def test_golden_pipeline(golden_vectors: GoldenVectors) -> None:
    """From the recorded clusters at the knee of the recorded curve to the recorded channels."""
    vectors = json.loads((golden_vectors / "04_weighted_selection.json").read_text())
    for case in vectors["pipeline_seeded"]:
        k_values, result = range(2, case["n"]), case["result_exact_mss"]
        knee = find_knee(k_values, case["mss_curve_exact"])
        # The recorder's rounding may have taken the second of two equally high points.
        assert knee is not None
        assert result["knee"] - knee in (0, 1)
        points = torch.tensor(case["reduced_matrix"], dtype=torch.float64)
        labels, medoids = torch.tensor(result["labels"]), torch.tensor(result["medoids"])
        mss = mean_simplified_silhouette(dissimilarity(points), medoids, labels)
        assert mss == pytest.approx(case["mss_curve_exact"][result["knee"] - 2], abs=1e-9)
        kept = heaviest_per_cluster(labels, torch.tensor(case["weights"]))
        assert kept.tolist() == result["kept"]


def test_keeps_the_heaviest_channel_of_every_cluster() -> None:
    matrix, weights = layer()
    selection = select_channels(matrix, weights, embedding="pca")
    assert selection.bound in ("knee", "lower", "upper")
    assert 12 <= selection.k <= 24
    assert selection.keep.dtype == torch.int64
    assert selection.keep.tolist() == sorted(set(selection.keep.tolist()))
    assert len(selection.keep) == selection.k == len(selection.medoids)
    for cluster in range(selection.k):
        mine = [c for c in range(48) if selection.labels[c] == cluster]
        kept = [c for c in mine if c in selection.keep.tolist()]
        assert kept == [max(mine, key=lambda c: weights[c].item())]


def test_same_input_same_channels() -> None:
    matrix, weights = layer()
    first = select_channels(matrix, weights, seed=1)
    assert torch.equal(first.keep, select_channels(matrix, weights, seed=1).keep)


def test_given_width_and_cheap_second_choice() -> None:
    matrix, weights = layer(20)
    clustering = cluster_channels(matrix, embedding="pca")
    for k in range(1, 21):
        again = choose_channels(clustering, weights, k)
        assert (len(again.keep), again.k, again.bound) == (k, k, "given")
    assert choose_channels(clustering, weights, 1).keep.tolist() == [weights.argmax().item()]
    alone = select_channels(matrix, weights, k=7, embedding="pca")
    assert torch.equal(alone.keep, choose_channels(clustering, weights, 7).keep)


def test_bounds_and_rounding_reach_the_result() -> None:
    matrix, weights = layer(40)
    clustering = cluster_channels(matrix, embedding="pca")
    assert clustering.knee is not None
    bare = choose_channels(clustering, weights, keep_range=None)
    assert (bare.k, bare.bound) == (clustering.knee, "knee")
    low = choose_channels(clustering, weights, keep_range=(0.05, 0.1))
    assert (low.k, low.bound) == (4, "upper")
    assert choose_channels(clustering, weights, round_to=8).k in (16, 24)


def test_equal_channels_fall_back_to_the_upper_bound() -> None:
    selection = select_channels(torch.zeros(16, 3), torch.arange(16.0))
    assert (selection.knee, selection.k, selection.bound) == (None, 8, "fallback")
    assert len(set(selection.keep.tolist())) == 8
    assert 15 in selection.keep


def test_rejects_what_does_not_fit() -> None:
    matrix, weights = layer(8)
    with pytest.raises(ValueError, match="diverged"):
        select_channels(matrix, weights * torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        select_channels(matrix * torch.nan, weights)
    with pytest.raises(ValueError, match=r"outside 1\.\.8"):
        select_channels(matrix, weights, k=9)
    with pytest.raises(ValueError, match="without gaps"):
        heaviest_per_cluster(torch.tensor([0, 2]), torch.ones(2))
