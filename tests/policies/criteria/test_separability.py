import pytest
import torch

from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.group_scores import (
    batch_norm_scale,
    mean_activation,
    weight_norm,
)
from lightning_prune.policies.criteria.non_finite_importance import NonFiniteImportanceError
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from tests.networks import EXAMPLE, Chain, make
from tests.policies.fixtures import residual, seen

WEIGHTS = {
    "l1": lambda net, group, moments: weight_norm(net, group, 1),
    "l2": lambda net, group, moments: weight_norm(net, group, 2),
    "bn_scale": lambda net, group, moments: batch_norm_scale(net, group),
    "activation": lambda net, group, moments: mean_activation(group, moments),
}


def evidence_of(name="project.0"):
    net, groups = residual()
    found = seen(net, groups[name].producers)
    moments = {layer: found.of(layer) for layer in groups[name].producers}
    clustering = ChannelClusterer(embedding="pca").cluster(groups[name], moments)
    return Evidence(net, groups[name], moments, clustering)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("width", [1, 3, 5, 11])
def test_of_every_cluster_the_strongest_stays(weight, width):
    evidence = evidence_of()
    keep = Separability(weight).choose(evidence, width)
    strength = WEIGHTS[weight](evidence.model, evidence.group, evidence.moments)
    labels = evidence.clustering.at(width).labels.tolist()
    expected = sorted(
        max((c for c in range(12) if labels[c] == cluster), key=lambda c: (strength[c], -c))
        for cluster in set(labels)
    )
    assert keep.tolist() == expected
    assert len(keep) == width


def test_without_clusters_the_strongest_of_all_stay():
    net, groups = residual()
    evidence = Evidence(net, groups["project.0"])
    norms = weight_norm(net, groups["project.0"], 1)
    expected = norms.argsort(descending=True)[:4].sort()[0]
    assert torch.equal(Separability().choose(evidence, 4), expected)
    # There are no activations to go by either.
    assert torch.equal(Separability("activation").choose(evidence, 4), expected)


def test_arguments_and_groups_that_cannot_be_judged():
    with pytest.raises(
        ValueError, match="weight='l3': pass 'l1', 'l2', 'activation' or 'bn_scale'"
    ):
        Separability("l3")
    chain = make(Chain)
    group = trace_groups(chain, EXAMPLE)["conv1"]
    Separability().check(chain, group)
    with pytest.raises(ValueError, match="'conv1' has no BatchNorm"):
        Separability("bn_scale").check(chain, group)


def test_importance_counts_the_widths_that_keep_a_channel():
    evidence = evidence_of()
    criterion = Separability("l2")
    strength = weight_norm(evidence.model, evidence.group, 2)
    counts = torch.zeros(12, dtype=torch.float64)
    for width in range(1, 13):
        counts[criterion.choose(evidence, width)] += 1
    expected = (counts + strength / (2 * strength.max())) / 12
    torch.testing.assert_close(criterion.importance(evidence), expected, atol=1e-12, rtol=0)


def test_groups_are_ranked_by_clusters_or_not_at_all():
    net, groups = residual()
    macs = MacModel.of(net, groups, EXAMPLE)
    evidence, held = evidence_of(), PruningPlan()
    args = net, groups, ("project.0",), macs, held
    found = Separability().comparable(*args, {"project.0": evidence})["project.0"]
    importance = Separability().importance(evidence)
    torch.testing.assert_close(found, importance / importance.mean())
    for known in (None, {"project.0": Evidence(net, groups["project.0"])}):
        with pytest.raises(NonFiniteImportanceError, match="has no clusters to choose by"):
            Separability().comparable(*args, known)
