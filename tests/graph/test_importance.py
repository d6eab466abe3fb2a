import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_prune.graph.importance import group_importance
from lightning_prune.graph.trace import trace_groups
from tests.networks import EXAMPLE, NETWORKS, Chain, Residual, make

THEIRS = {
    ("norm", 1): lambda: tp.importance.GroupMagnitudeImportance(p=1),
    ("norm", 2): lambda: tp.importance.GroupMagnitudeImportance(p=2),
    ("fpgm", 1): lambda: tp.importance.FPGMImportance(p=1),
    ("fpgm", 2): lambda: tp.importance.FPGMImportance(p=2),
    ("lamp", 1): lambda: tp.importance.LAMPImportance(p=1),
    ("lamp", 2): lambda: tp.importance.LAMPImportance(p=2),
    ("taylor", 2): lambda: tp.importance.GroupTaylorImportance(),
}


def with_gradients(network: type[nn.Module]) -> nn.Module:
    net = make(network)
    torch.manual_seed(7)
    net(torch.randn(2, 3, 8, 8)).square().sum().backward()
    return net.eval()


def theirs(net: nn.Module, name: str, channels: int, importance: tp.importance.Importance):
    """Torch-pruning's importance on its own group."""
    graph = tp.DependencyGraph().build_dependency(net, EXAMPLE)
    layer = net.get_submodule(name)
    prune = graph.get_pruner_of_module(layer).prune_out_channels
    found: Tensor = importance(graph.get_pruning_group(layer, prune, list(range(channels))))
    return found.double()


@pytest.mark.parametrize(("kind", "p"), THEIRS)
@pytest.mark.parametrize("network", NETWORKS)
def test_equals_torch_pruning_on_its_own_groups(network: type[nn.Module], kind: str, p: int):
    net = with_gradients(network)
    groups = trace_groups(net, EXAMPLE)
    for name, group in groups.items():
        ours = group_importance(net, group, kind, p)
        assert ours.shape == (group.channels,)
        scale = 1.0 if kind == "lamp" else ours.mean()  # theirs are divided by their mean
        expected = theirs(net, name, group.channels, THEIRS[kind, p]())
        torch.testing.assert_close(ours / scale, expected, rtol=2e-5, atol=1e-7)


def test_fpgm_of_a_wide_flattened_consumer(monkeypatch: pytest.MonkeyPatch):
    """Where n C columns have too many distances, each of the n positions counts by itself.

    VGG-16's first linear layer has 25088 columns: torch-pruning takes 2.5 GB for their distances.
    """
    monkeypatch.setattr("lightning_prune.graph.importance.MOST_COLUMNS", 12 * 16 - 1)
    net = with_gradients(Chain)
    ours = group_importance(net, trace_groups(net, EXAMPLE)["conv2"], "fpgm")
    rows = net.conv2.weight.detach().square().flatten(1)
    expected = torch.cdist(rows, rows).sum(1).double()
    for position in range(16):
        columns = net.linear.weight.detach().square().view(10, 12, 16)[:, :, position].T
        expected += torch.cdist(columns, columns).sum(1)
    torch.testing.assert_close(ours / ours.mean(), expected / expected.mean())


def test_norm_by_hand_on_tied_layers():
    net = make(Residual)
    group = trace_groups(net, EXAMPLE)["project.0"]
    expected = (
        net.project[0].weight.square().flatten(1).sum(1)
        + net.b2[0].weight.square().flatten(1).sum(1)
        + net.project[1].weight.square()
        + net.b2[1].weight.square()
        + net.head.weight.square().sum(0)
    ) / 5
    torch.testing.assert_close(group_importance(net, group, "norm"), expected.detach().double())


def test_taylor_leaves_frozen_layers_out():
    net = with_gradients(Residual)
    groups = trace_groups(net, EXAMPLE)
    net.a1[0].weight.grad = None
    expected = (net.a2[0].weight * net.a2[0].weight.grad).detach().abs().sum((0, 2, 3))
    ours = group_importance(net, groups["a1.0"], "taylor").float()  # as precise as the weights
    torch.testing.assert_close(ours / ours.mean(), expected / expected.mean())


def test_taylor_where_only_a_flattened_consumer_is_trained():
    net = with_gradients(Chain)
    net.conv2.weight.grad = None
    expected = (net.linear.weight * net.linear.weight.grad).detach().abs().sum(0)
    ours = group_importance(net, trace_groups(net, EXAMPLE)["conv2"], "taylor")
    torch.testing.assert_close(ours, expected.view(12, 16).sum(1).double())


def test_taylor_without_gradients_says_so():
    net = with_gradients(Residual)
    for layer in (net.a1[0], net.a2[0]):
        layer.weight.grad = None
    with pytest.raises(
        ValueError, match=r"no convolution or linear layer of group 'a1\.0' has a gradient"
    ):
        group_importance(net, trace_groups(net, EXAMPLE)["a1.0"], "taylor")


@pytest.mark.parametrize("kind", ["norm", "fpgm", "lamp"])
def test_a_group_of_zeros_is_all_equal(kind: str):
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert group_importance(net, groups["a1.0"], kind).tolist() == [0.0] * 6


def test_the_model_stays_as_it_was():
    net = with_gradients(Residual)
    before = {name: (p.clone(), p.grad.clone()) for name, p in net.named_parameters()}
    for group in trace_groups(net, EXAMPLE).values():
        for kind in ("norm", "fpgm", "lamp", "taylor"):
            group_importance(net, group, kind)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert torch.equal(parameter.grad, before[name][1])
