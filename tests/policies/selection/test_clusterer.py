import numpy as np
import pytest
import torch

from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.functional.selection.separability import separability_matrix
from lightning_prune.policies.selection.clusterer import ChannelClusterer, group_noise
from tests.policies.fixtures import residual, sampled, seen, shuffled_group, values


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


def test_profiles_are_counted_beside_the_noise_of_halves():
    net, groups = residual()
    found = sampled(net, groups.prunable_layers, noise=groups["b1.0"].producers)
    clusterer = ChannelClusterer(embedding="none")
    assert clusterer.cluster_seen(groups["project.0"], found).count == 3
    assert clusterer.cluster_seen(groups["b1.0"], found).count == 1
    # Rows alone do not know how far noise sets channels apart.
    alone = clusterer.cluster_seen(groups["b1.0"], seen(net, groups.prunable_layers))
    assert alone.count > 1


def test_the_noise_of_a_group_is_that_of_its_separability():
    """Oracle: over many draws of the objects themselves, errors are as large."""
    net, groups = residual()
    group, drawn = groups["project.0"], []
    for seed in range(12):
        torch.manual_seed(seed)
        rows = torch.arange(12)[:, None] % 3 * torch.tensor([[0.0, 1.0, 2.0]])
        label = torch.arange(300) % 3
        drawn.append(matrix_of(class_moments(rows[:, label].T + torch.randn(300, 12), label, 3)))
    errors = torch.stack(drawn).std(0)
    found = sampled(net, groups.prunable_layers)
    noise = group_noise(group, found)
    assert len(noise) == 8
    assert noise[0].shape == (12, 3 * len(group.producers))
    # Of other profiles, but as many objects: the same size.
    assert 0.3 < float(torch.stack(noise).std()) / float(errors.mean()) < 3


def test_classes_of_few_objects_have_no_estimate_of_their_noise():
    net, groups = residual()
    layers = groups.prunable_layers
    few = sampled(net, layers, objects=11)  # 4, 4 and 3
    noise = group_noise(groups["project.0"], few)[0]
    pairs = [False, True, True]  # 01, 02, 12
    assert noise.isnan().any(0).tolist() == pairs * len(groups["project.0"].producers)
    fewer = sampled(net, layers, objects=8)
    assert group_noise(groups["project.0"], fewer)[0].isnan().all()
    clusterer = ChannelClusterer(embedding="none")
    assert clusterer.cluster_seen(groups["project.0"], fewer).count == 1
    assert group_noise(groups["project.0"], seen(net, layers)) == []
