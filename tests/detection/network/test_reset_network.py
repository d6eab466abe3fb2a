import copy
import warnings

import pytest
import torch
from torch import nn

from lightning_prune.detection.network.csp_reset import COUNTS, ORIGINALS, CSPReset
from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.detection.network.reset_network import YOLOv8Reset
from lightning_prune.detection.weights.read_weights import read_state_dict
from lightning_prune.graph.outputs import layer_outputs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.observe.usage import ChannelUsage
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from tests.networks import random_plan

BLOCKS = ["backbone.p3.csp", "backbone.p4.csp", "backbone.p5.csp"]
EXAMPLE = torch.zeros(1, 3, 64, 64)
SMALL = {"num_classes": 2, "widths": (4, 8, 12, 16, 20), "depths": (1, 2, 1)}


def small(seed=0, **options):
    torch.manual_seed(seed)
    net = YOLOv8Reset(**SMALL, **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


def test_the_stages_p3_to_p5_are_of_these_blocks():
    net = YOLOv8Reset("s", num_classes=3, topk=0.5, threshold=0.1)
    found = {n: m for n, m in net.named_modules() if isinstance(m, CSPReset)}
    assert list(found) == BLOCKS
    assert {(m.topk, m._usage.threshold) for m in found.values()} == {(0.5, 0.1)}
    with pytest.raises(ValueError, match="topk=2"):
        YOLOv8Reset("n", topk=2)
    with pytest.raises(ValueError, match="num_classes"):
        YOLOv8Reset("n", num_classes=0)


@pytest.mark.parametrize("size", ["n", "s"])
def test_loads_ordinary_weights_strictly_and_computes_the_same(size):
    torch.manual_seed(0)
    plain, net = YOLOv8(size, 2), YOLOv8Reset(size, 2)
    state = plain.state_dict()
    assert not net.load_state_dict(state).missing_keys
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), plain.eval()(x))
        for ours, theirs in zip(net.train()(x), plain.train()(x), strict=True):
            assert torch.equal(ours, theirs)
    for name in BLOCKS:
        weight = state[f"{name}.conv3.conv.weight"]
        assert torch.equal(net.state_dict()[f"{name}.{ORIGINALS}weight"], weight)


def test_reproduces_the_coco_weights(shared):
    state = read_state_dict(shared / "data" / "yolov8n_coco" / "yolov8n_coco.safetensors")
    net, plain = YOLOv8Reset("n", 80), YOLOv8("n", 80)
    net.load_state_dict(state)
    plain.load_state_dict(state)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(net.eval()(x), plain.eval()(x))


def test_the_originals_are_a_small_share_of_the_state_dict():
    """The rows of three convolutions and their norms, as the page on channel reset says."""
    state = YOLOv8Reset("n", 80).state_dict()
    size = {name: value.numel() * value.element_size() for name, value in state.items()}
    share = sum(v for n, v in size.items() if f".{ORIGINALS}" in n) / sum(size.values())
    assert 0.035 < share < 0.045
    ordinary = YOLOv8("n", 80).state_dict()
    counts = {f"{block}.{name}" for block in BLOCKS for name in COUNTS}
    assert state.keys() - ordinary.keys() - counts == {
        f"{block}.{ORIGINALS}{name}"
        for block in BLOCKS
        for name in ("weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    }


def test_the_guides_report_and_periodic_reset():
    net = small()
    with torch.no_grad():
        for block, channel in (("p3", 5), ("p5", 7)):
            getattr(net.backbone, block).csp.conv3.norm.weight[channel] = 0.0
            getattr(net.backbone, block).csp.conv3.norm.bias[channel] = 0.0
    for _ in range(2):
        net(torch.rand(2, 3, 64, 64))
    report = net.get_channel_usage_report()
    assert list(report) == BLOCKS
    assert [report[name]["total_channels"] for name in BLOCKS] == [12, 16, 20]
    assert [report[name]["used_channels"] for name in BLOCKS] == [11, 16, 19]
    assert report[BLOCKS[0]]["usage_count"].tolist() == [2] * 5 + [0] + [2] * 6
    before = copy.deepcopy(net.state_dict())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net.reset_used_channels(reset_type="random")
    assert [str(w.message)[:30] for w in caught] == ["all 16 channels count as used,"]
    changed = {k for k, value in net.state_dict().items() if not torch.equal(value, before[k])}
    tensors = ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert changed == {f"{name}.conv3.{tensor}" for name in BLOCKS for tensor in tensors}
    rows = net.backbone.p3.csp.conv3.conv.weight.detach() - before[f"{BLOCKS[0]}.conv3.conv.weight"]
    assert torch.nonzero(rows.flatten(1).any(1)).flatten().tolist() == [
        0,
        1,
        2,
        3,
        4,
        *range(6, 12),
    ]


@pytest.mark.filterwarnings("ignore:all .* channels count as used")
def test_every_optimizer_forgets():
    net = small()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    sum(out.square().mean() for out in net(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    net.reset_used_channels("zero", iter([optimizer]))
    for name in BLOCKS:
        weight = net.get_submodule(name).conv3.conv.weight
        assert not optimizer.state[weight]["momentum_buffer"].any()
    assert optimizer.state[net.backbone.p1.conv.weight]["momentum_buffer"].any()


def test_zero_is_silence():
    """Zeroed outputs of p5 leave only what bypasses it."""
    net = small().eval()
    net.backbone.p5.csp.reset_all_channels("zero")
    with torch.no_grad():
        assert not net.backbone.p5.csp(torch.rand(1, 20, 4, 4)).any()


@pytest.mark.parametrize("topk", [None, 0.2])
def test_masked_equals_cut_and_counts_and_originals_go_along(topk):
    net = small(topk=topk)
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    own = {n: f"{n}.conv3.conv" for n in BLOCKS}
    assert groups.keys() >= set(own.values())
    for name in BLOCKS:
        counts = net.get_submodule(name).channel_usage_count
        counts.copy_(torch.arange(len(counts)))
    net.eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        dense = net(x)
        ChannelMask(net, groups, plan).apply()
        masked = net(x)
        assert not torch.allclose(masked, dense, atol=1e-2)
        before = net.state_dict()
        cut_channels(net, groups, plan)
        torch.testing.assert_close(net(x), masked, rtol=1e-4, atol=1e-4)
    for name in BLOCKS:
        keep = plan.keep[own[name]]
        block = net.get_submodule(name)
        assert block.channel_usage_count.tolist() == keep.tolist()
        # They were the weights all along.
        originals = block.state_dict()[f"{ORIGINALS}weight"]
        assert torch.equal(originals, block.conv3.conv.weight)
        assert originals.shape[1] < before[f"{name}.{ORIGINALS}weight"].shape[1]
        block.reset_all_channels("original")
    assert all(out.isfinite().all() for out in net.train()(x))


def test_tracking_by_hooks_counts_the_same():
    """Two ways to the same counts: the block's own, and those of any layer."""
    net = small(threshold=0.3)
    outputs = layer_outputs(net, EXAMPLE)
    layers = {n: outputs[n] for n in outputs if n in {f"{b}.conv3.conv" for b in BLOCKS}}
    usage = ChannelUsage(net, layers, threshold=0.3)
    with usage:
        for seed in range(3):
            net(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    counts, _ = usage.read()
    report = net.get_channel_usage_report()
    for name in BLOCKS:
        found = report[name]["usage_count"]
        assert torch.equal(found, counts[f"{name}.conv3.conv"])
    assert {0, 3} <= {int(c) for c in torch.cat(list(counts.values()))}


def test_a_deepcopy_and_a_partial_plan():
    net = small()
    twin = copy.deepcopy(net)
    name = f"{BLOCKS[1]}.conv3.conv"
    groups = trace_groups(net, EXAMPLE)
    plan = PruningPlan({name: torch.tensor([0, 3, 9])}, {name: 16})
    cut_channels(net, groups, plan)
    assert len(net.backbone.p4.csp.channel_usage_count) == 3
    assert len(net.backbone.p3.csp.channel_usage_count) == 12
    assert len(twin.backbone.p4.csp.channel_usage_count) == 16
    assert twin.state_dict()[f"{BLOCKS[1]}.{ORIGINALS}weight"].shape[0] == 16
