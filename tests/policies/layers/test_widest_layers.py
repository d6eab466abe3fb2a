import pytest
import torch
from torch import nn

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.layers.widest_layers import WidestLayers, block_of
from tests.networks import EXAMPLE, Chain, make


@pytest.fixture(scope="module")
def yolo():
    net = YOLOv8("n", num_classes=3)
    return net, trace_groups(net, torch.zeros(1, 3, 64, 64))


def seed_rule(net, groups, count, blocks=None):
    """Sort the convolutions of a range of blocks by channels, take the top N, one per block."""
    layers = [
        (name, ".".join(name.split(".")[:2]), module.out_channels)
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and name in groups.prunable_layers
    ]
    layers.sort(key=lambda layer: groups.order.index(layer[0]))
    if blocks is not None:
        layers = [layer for layer in layers if layer[1] in blocks]
    chosen, used = [], set()
    for name, block, _ in sorted(layers, key=lambda layer: -layer[2]):
        group = groups.group_of(name).name
        if block not in used and group not in chosen and len(chosen) < count:
            used.add(block)
            chosen.append(group)
    return tuple(name for name in groups if name in chosen)


@pytest.mark.filterwarnings("ignore:WidestLayers")
@pytest.mark.parametrize("count", [1, 2, 3, 5, 50])
def test_widest_one_per_block(yolo, count):
    net, groups = yolo
    assert WidestLayers(count).select(net, groups) == seed_rule(net, groups, count)


def test_range_of_blocks(yolo):
    net, groups = yolo
    chosen = WidestLayers(3, blocks=[1, 4]).select(net, groups)
    stages = {f"backbone.p{i}" for i in range(1, 5)}
    assert chosen == seed_rule(net, groups, 3, stages)
    assert {block_of(name) for name in chosen} <= stages
    assert len({block_of(name) for name in chosen}) == len(chosen) == 3


def test_front_to_back_and_as_wide_as_any_left_out(yolo):
    net, groups = yolo
    chosen = WidestLayers(4).select(net, groups)
    assert list(chosen) == sorted(chosen, key=groups.order.index)
    widths = {name: groups[name].channels for name in groups}
    for other in set(groups) - set(chosen):
        same_block = any(block_of(other) == block_of(name) for name in chosen)
        narrower = widths[other] <= min(widths[name] for name in chosen)
        assert same_block or narrower


@pytest.mark.parametrize("per_block", [1, 2, None])
def test_at_most_some_per_block(yolo, per_block):
    net, groups = yolo
    chosen = WidestLayers(12, per_block=per_block).select(net, groups)
    most = max(sum(block_of(a) == block_of(b) for a in chosen) for b in chosen)
    assert len(chosen) <= 12
    assert per_block is None or most == per_block
    if per_block is None:
        assert len(chosen) == 12


def test_depth_sets_what_a_block_is(yolo):
    net, groups = yolo
    with pytest.warns(UserWarning, match=r"count=50\) selects 3 groups: there are 65 prunable"):
        assert len(WidestLayers(50, depth=1).select(net, groups)) == 3  # backbone, neck, head


def test_a_flat_network_has_one_layer_per_block():
    net = make(Chain)
    groups = trace_groups(net, EXAMPLE)
    assert WidestLayers(2).select(net, groups) == ("conv2", "linear")
    assert WidestLayers(2, blocks=(1, 2)).select(net, groups) == ("conv1", "conv2")
    said = r"selects 2 groups: there are 2 prunable layers in 2 blocks, at most all of each; lower"
    with pytest.warns(UserWarning, match=said):
        WidestLayers(3, blocks=(1, 2), per_block=None).select(net, groups)


def test_wrong_arguments(yolo):
    net, groups = yolo
    for options in ({"count": 0}, {"per_block": 0}, {"depth": 0}):
        with pytest.raises(ValueError, match="pass an integer of at least 1"):
            WidestLayers(**options)
    for blocks in ([0, 3], [4, 3], [1], (1, 2, 3)):
        with pytest.raises(ValueError, match="1 <= first <= last"):
            WidestLayers(blocks=blocks)
    with pytest.raises(ValueError, match=r"blocks=\(70, 80\): the model has blocks 1\.\."):
        WidestLayers(blocks=(70, 80)).select(net, groups)
