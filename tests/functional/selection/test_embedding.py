import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from lightning_prune.functional import dissimilarity, embed_channels


def separability(channels: int, pairs: int = 45, groups: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.rand(groups, pairs, generator=generator, dtype=torch.float64) * 2
    noise = torch.rand(channels, pairs, generator=generator, dtype=torch.float64)
    return kinds[torch.arange(channels) % groups] * 0.9 + 0.2 * noise


def test_pca_equals_scikit_learn() -> None:
    matrix = separability(40)
    ours = embed_channels(matrix, "pca")
    theirs = PCA(n_components=2).fit_transform(matrix.numpy())
    np.testing.assert_allclose(ours.abs(), np.abs(theirs), atol=1e-10)


def test_none_is_the_matrix() -> None:
    matrix = separability(6)
    assert torch.equal(embed_channels(matrix, "none"), matrix)


def test_tsne_keeps_neighbours_together() -> None:
    matrix = separability(80)
    points = embed_channels(matrix)
    assert points.shape == (80, 2)
    assert trustworthiness(matrix.numpy(), points.numpy(), n_neighbors=8) > 0.9
    diss = dissimilarity(points)
    diss.fill_diagonal_(torch.inf)
    assert torch.equal(diss.argmin(dim=1) % 4, torch.arange(80) % 4)


def test_tsne_repeats_itself_and_does_not_see_the_last_bits() -> None:
    matrix = separability(50)
    first = embed_channels(matrix)
    assert torch.equal(first, embed_channels(matrix))
    state = np.random.get_state()[1].copy()
    noise = torch.randn(50, 45, generator=torch.Generator().manual_seed(1)) * 1e-15
    torch.testing.assert_close(embed_channels(matrix + noise), first, rtol=0, atol=1e-3)
    assert np.array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 16, 31])
@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_small_layers(channels: int, method: str) -> None:
    points = embed_channels(separability(channels), method, iterations=250)
    assert points.shape == (channels, 2)
    assert points.dtype == torch.float64
    assert points.isfinite().all()


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize("value", [0.0, 0.1, 2.0])
def test_equal_channels_are_one_point(method: str, value: float) -> None:
    matrix = torch.full((20, 3), value, dtype=torch.float64)
    assert not embed_channels(matrix, method).any()


def test_dead_channels_stay_together() -> None:
    matrix = separability(40)
    matrix[30:] = 0.0
    points = embed_channels(matrix)
    assert not dissimilarity(points[30:]).any()
    alone = embed_channels(matrix[:31])
    assert torch.equal(points[:31], alone)  # nine more dead channels do not move the others


def test_order_of_the_channels_does_not_matter() -> None:
    matrix = separability(30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    shuffled = embed_channels(matrix[order])
    assert torch.equal(shuffled, embed_channels(matrix)[order])


def test_one_class_pair_still_fills_the_plane() -> None:
    matrix = torch.rand(60, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    points = embed_channels(matrix)
    assert points.std(dim=0).min() > 0.05 * points.std(dim=0).max()


def test_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="NaN"):
        embed_channels(torch.full((5, 2), torch.nan))
    with pytest.raises(ValueError, match="class pairs"):
        embed_channels(torch.zeros(5))
    with pytest.raises(ValueError, match="class pairs"):
        embed_channels(torch.zeros(5, 0))
    with pytest.raises(ValueError, match="choose"):
        embed_channels(torch.zeros(5, 2), "umap")
    with pytest.raises(ValueError, match="at least 250"):
        embed_channels(torch.zeros(5, 2), perplexity=0.5)
