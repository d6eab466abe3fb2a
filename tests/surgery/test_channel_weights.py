import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.channel_weights import ChannelWeights
from tests.networks import EXAMPLE, Chain, Depthwise, Residual, make


def test_flattened_consumer_counts_all_positions() -> None:
    net = make(Chain)
    weights = ChannelWeights(net, trace_groups(net, EXAMPLE), ["conv2"])
    # A row of 8 x 3 x 3, and a column of 10 at each of the 16 positions of the map.
    assert weights.counts.tolist() == [8 * 9 + 16 * 10] * 12
    columns = net.linear.weight.detach().double().view(10, 12, 16)
    rows = net.conv2.weight.detach().double().flatten(1)
    expected = rows.square().sum(1) + columns.square().sum((0, 2))
    torch.testing.assert_close(weights.squares(), expected, rtol=1e-6, atol=1e-8)


def test_depthwise_weights_do_not_count() -> None:
    net = make(Depthwise)
    weights = ChannelWeights(net, trace_groups(net, EXAMPLE), ["expand.0"])
    before = weights.squares()
    with torch.no_grad():
        net.depthwise[0].weight.fill_(7)
        net.depthwise[1].bias.fill_(7)
    assert torch.equal(weights.squares(), before)
    with torch.no_grad():
        net.depthwise[1].weight[3] += 2
    assert (weights.squares() != before).nonzero().flatten().tolist() == [3]


def test_batch_norms_only() -> None:
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    weights = ChannelWeights(net, groups, ["stem.0"], batch_norms_only=True)
    expected = (net.stem[1].weight.square() + net.a2[1].weight.square()).detach() / 2
    torch.testing.assert_close(weights.norms(), expected.double().sqrt(), rtol=1e-6, atol=0)
    assert weights.counts.tolist() == [2] * 8


def test_split_and_keeps() -> None:
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    weights = ChannelWeights(net, groups, ["a1.0", "b1.0"])
    assert len(weights) == 16
    plan = PruningPlan({"b1.0": torch.tensor([0, 9])}, {"b1.0": 10})
    kept = weights.split(weights.keeps(plan))
    assert kept["a1.0"].tolist() == [True] * 6
    assert kept["b1.0"].nonzero().flatten().tolist() == [0, 9]
    assert weights.split(weights.group)["b1.0"].tolist() == [1] * 10


def test_no_group_at_all() -> None:
    net = make(Residual)
    weights = ChannelWeights(net, trace_groups(net, EXAMPLE), [])
    assert weights.norms().tolist() == []
    assert not weights.trainable()
    weights.add_to_gradients(torch.zeros(0))
    assert all(p.grad is None for p in net.parameters())


def test_trainable() -> None:
    net = make(Residual)
    weights = ChannelWeights(net, trace_groups(net, EXAMPLE))
    assert weights.trainable()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    net.stem[1].bias.requires_grad_(True)
    assert not weights.trainable()


@pytest.mark.parametrize("how", ["replaced", "shrunk in place"])
def test_a_width_that_changed_is_an_error(how: str) -> None:
    net = make(Residual)
    weights = ChannelWeights(net, trace_groups(net, EXAMPLE))
    weights.squares()
    if how == "replaced":
        net.a1[0].weight = nn.Parameter(torch.zeros(5, 8, 3, 3))
    else:
        net.a1[0].weight.data = net.a1[0].weight.data[:5]  # at the same address
    with pytest.raises(RuntimeError, match=r"a1\.0\.weight was \(6, 8, 3, 3\) and is \(5,"):
        weights.squares()
