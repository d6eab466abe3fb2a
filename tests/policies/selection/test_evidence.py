import pytest
import torch

from lightning_prune.graph.macs import MacModel
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.criteria.apoz import APoZ
from lightning_prune.policies.criteria.non_finite_importance import NonFiniteImportanceError
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.evidence import group_evidence
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from tests.networks import EXAMPLE
from tests.policies.fixtures import residual, seen

CLUSTERER = ChannelClusterer(embedding="pca")


def sources(groups):
    return tuple(member.layer for group in groups.values() for member in group.sources)


def test_clusters_decide_at_a_ratio_and_not_the_size_of_filters():
    net, groups = residual()
    names, macs = tuple(groups), MacModel.of(net, groups, EXAMPLE)
    known = group_evidence(net, groups, names, seen=seen(net, sources(groups)), clusterer=CLUSTERER)
    # Every filter of the same size: only clusters tell channels apart.
    for layer in sources(groups):
        weight = net.get_submodule(layer).weight
        weight.data /= weight.data.flatten(1).abs().sum(1).view(-1, *[1] * (weight.ndim - 1))
    chosen = RatioSelection(groups, names, macs, Separability(), "local")
    kept = chosen.select(net, 0.5, None, evidence=known).plan.keep
    for name in names:
        importance = Separability().importance(known[name])
        width = len(kept[name])
        assert kept[name].tolist() == sorted(
            importance.argsort(descending=True, stable=True)[:width].tolist()
        )
        assert importance.std() > 0.05


def test_nothing_seen_is_no_decision_and_no_fallback():
    net, groups = residual()
    names, macs = tuple(groups), MacModel.of(net, groups, EXAMPLE)
    known = group_evidence(net, groups, names, seen=ObjectActivations(sources(groups)))
    selection = RatioSelection(groups, names, macs, Separability())
    with pytest.raises(NonFiniteImportanceError, match="no object, or objects of one class"):
        selection.select(net, 0.5, None, evidence=known)


def test_means_of_outputs_go_to_the_groups_of_their_layers():
    net, groups = residual()
    outputs = {layer: torch.rand(len(net.get_submodule(layer).weight)) for layer in sources(groups)}
    known = group_evidence(net, groups, tuple(groups), outputs=outputs)
    for name, group in groups.items():
        expected = torch.stack([outputs[member.layer] for member in group.sources]).mean(0)
        found = APoZ().importance(known[name])
        torch.testing.assert_close(found, expected.double())
