import json

import pytest
import torch

from lightning_prune.functional import (
    cluster_channels,
    dissimilarity,
    find_knee,
    kmedoids_sweep,
    mean_simplified_silhouette,
)
from tests.golden_vectors import GoldenVectors


def matrix_of(channels: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(channels, 10, generator=generator, dtype=torch.float64) * 2


@pytest.mark.parametrize("other", ["mean", "nearest"])
def test_is_the_steps_one_after_the_other(other: str) -> None:
    clustering = cluster_channels(matrix_of(), embedding="pca", other=other, seed=5)
    diss = dissimilarity(clustering.embedding)
    assert clustering.k_values.tolist() == list(range(2, 40))
    alone = kmedoids_sweep(diss, range(1, 41), seed=5)
    mss = [
        mean_simplified_silhouette(diss, alone[k - 1].medoids, alone[k - 1].labels, other)
        for k in range(2, 40)
    ]
    assert clustering.mss.tolist() == mss
    assert clustering.knee == find_knee(range(2, 40), mss)
    for k in (1, 2, 17, 40):
        assert torch.equal(clustering.at(k).labels, alone[k - 1].labels)


def test_a_good_clustering_has_the_recorded_silhouette(golden_vectors: GoldenVectors) -> None:
    """Never a worse loss than recorded, and the recorded silhouette where the medoids agree.

    Either point of a pair may be its medoid at the same loss, so they need not agree.
    """
    curves = json.loads((golden_vectors / "02_mss_curves.json").read_text())["curves"]
    same = total = 0
    for curve in curves:
        points = torch.tensor(curve["points"], dtype=torch.float64)
        clustering = cluster_channels(points, embedding="none")
        for row in curve["rows"]:
            ours = clustering.at(row["k"])
            assert ours.loss <= row["loss"] * (1 + 1e-9)
            total += 1
            if ours.medoids.tolist() == sorted(row["medoids"]):
                same += 1
                exact = pytest.approx(row["mss_mean_other_exact"], abs=1e-9)
                assert clustering.mss[row["k"] - 2].item() == exact
    assert total == 90
    assert same >= 15


def test_equal_channels_are_clustered_without_a_knee() -> None:
    clustering = cluster_channels(torch.zeros(16, 3))
    assert clustering.knee is None
    assert clustering.mss.tolist() == [1.0] * 14
    assert clustering.at(8).labels.unique().numel() == 8


@pytest.mark.parametrize("channels", [4, 5, 6])
def test_smallest_layers(channels: int) -> None:
    clustering = cluster_channels(matrix_of(channels))
    assert len(clustering.clusters) == channels
    assert len(clustering.mss) == channels - 2


def test_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="too few to choose among"):
        cluster_channels(matrix_of(3))
    with pytest.raises(ValueError, match="NaN"):
        cluster_channels(matrix_of() * torch.nan)
    with pytest.raises(ValueError, match=r"outside 1\.\.5"):
        cluster_channels(matrix_of(5)).at(6)
