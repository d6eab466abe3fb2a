import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import nn

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.isomorphic import isomorphic_sets
from lightning_prune.graph.trace import trace_groups
from tests.networks import EXAMPLE, NETWORKS, Depthwise, Residual, make


def partition(numbers: tuple[int, ...], names: tuple[str, ...]) -> set[frozenset[str]]:
    return {
        frozenset(n for n, own in zip(names, numbers, strict=True) if own == number)
        for number in numbers
    }


def theirs(net: nn.Module, example: torch.Tensor, names: tuple[str, ...]) -> set[frozenset[str]]:
    """The scopes of torch-pruning's isomorphic mode, by the tag that it makes of each group."""
    net.eval()
    graph = tp.DependencyGraph().build_dependency(net, example)
    tags: dict[str, list[str]] = {}
    for name in names:
        layer = net.get_submodule(name)
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        tag = "".join(
            f"{type(d.source.module)}{type(d.target.module)}"
            f"{graph.is_out_channel_pruning_fn(d.handler)}"
            for d, _ in graph.get_pruning_group(layer, prune, [0])
        )
        tags.setdefault(tag, []).append(name)
    return {frozenset(found) for found in tags.values()}


def test_resnet_has_the_sets_of_torch_pruning():
    net, example = torchvision.models.resnet18(num_classes=5), torch.zeros(1, 3, 32, 32)
    groups = trace_groups(net, example)
    names = tuple(groups)
    found = partition(isomorphic_sets(net, groups, names), names)
    assert found == theirs(net, example, names)
    # The first convolutions of all blocks are alike, whatever their widths and strides.
    inner = {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3, 4) for block in (0, 1)}
    assert frozenset(inner) in found


@pytest.mark.parametrize("network", NETWORKS)
def test_the_sets_are_those_of_torch_pruning_or_joins_of_them(network: type[nn.Module]):
    """torch-pruning also tells operations without weights apart, such as two concatenations."""
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    names = tuple(groups)
    found = partition(isomorphic_sets(net, groups, names), names)
    for fine in theirs(make(network), EXAMPLE, names):
        assert any(fine <= coarse for coarse in found)


def test_depthwise_layers_make_a_difference():
    net = make(Depthwise)
    groups = trace_groups(net, EXAMPLE)
    numbers = dict(zip(groups, isomorphic_sets(net, groups, tuple(groups)), strict=True))
    assert numbers["expand.0"] != numbers["stem.0"]


def test_only_the_groups_that_are_asked_for_are_numbered():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    assert isomorphic_sets(net, groups, ("b1.0", "a1.0")) == (0, 0)
    assert isomorphic_sets(net, groups, ()) == ()


def test_yolov8_bottlenecks_are_alike():
    net = YOLOv8("n", num_classes=3)
    groups = trace_groups(net, torch.zeros(1, 3, 64, 64))
    names = tuple(groups)
    found = sorted(map(len, partition(isomorphic_sets(net, groups, names), names)))
    assert len(names) == 59
    assert sum(found) == 59
    assert found[-1] == 38  # a convolution, its norm and one consumer
