import numpy as np
import pytest
import torch

from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.functional.selection.separability import separability_matrix
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from tests.policies.fixtures import residual, seen, shuffled_group, values


def matrix_of(moments):
    return separability_matrix(moments.mean, moments.variance, moments.count)


def test_tied_producers_stand_side_by_side():
    net, groups = residual()
    group = groups["project.0"]
    found = seen(net, group.producers)
    moments = {layer: found.of(layer) for layer in group.producers}
    clustering = ChannelClusterer(embedding="none").cluster(group, moments)
    expected = torch.cat([matrix_of(moments[layer]) for layer in group.producers], dim=1)
    assert expected.shape == (12, 6)
    assert torch.equal(clustering.matrix, expected)
    same = cluster_channels(expected, embedding="none")
    assert clustering.knee == same.knee
    assert all(
        torch.equal(a.labels, b.labels)
        for a, b in zip(clustering.clusters, same.clusters, strict=True)
    )


def test_rows_are_the_groups_channels_whatever_the_members_order():
    group = shuffled_group()
    moments = {}
    for seed, layer in enumerate(group.producers):
        rows, label = values(5, seed)
        moments[layer] = class_moments(rows, label, 3)
    matrix = ChannelClusterer(embedding="none").cluster(group, moments).matrix
    expected = matrix_of(moments["b"])
    for position, channel in enumerate(group.members[1].channel.tolist()):
        assert torch.equal(matrix[channel, 3:], expected[position])
    assert torch.equal(matrix[:, :3], matrix_of(moments["a"]))


@pytest.mark.parametrize("embedding", ["tsne", "pca", "none"])
def test_settings_reach_the_clustering(embedding):
    net, groups = residual()
    moments = {"b1.0": seen(net, ("b1.0",)).of("b1.0")}
    options = {"embedding": embedding, "perplexity": 4.0, "other": "nearest", "seed": 3,
               "interpolation": "interp1d"}  # fmt: skip
    ours = ChannelClusterer(**options).cluster(groups["b1.0"], moments)
    theirs = cluster_channels(matrix_of(moments["b1.0"]), **options)
    np.testing.assert_array_equal(ours.embedding, theirs.embedding)
    np.testing.assert_array_equal(ours.mss, theirs.mss)
    assert ours.knee == theirs.knee


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding": "umap"}, "embedding='umap': pass 'tsne', 'pca' or 'none'"),
        ({"other": "median"}, "other='median': pass 'mean' or 'nearest'"),
        ({"interpolation": "cubic"}, "interpolation='cubic'"),
        ({"backend": "rust"}, "backend='rust': pass 'native' or 'sklearn_extra'"),
        ({"perplexity": 0}, "perplexity=0: pass a number above 0, for example 10"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ChannelClusterer(**options)
