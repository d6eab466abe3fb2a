import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from tests.networks import EXAMPLE, NETWORKS, Residual, make, random_plan


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_masked_equals_cut(network, share):
    net = make(network).eval()
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups, share=share)
    x = torch.randn(4, 3, 8, 8)
    mask = ChannelMask(net, groups, plan)
    dense = net(x)
    mask.apply()
    masked = net(x)
    assert not torch.allclose(dense, masked, atol=1e-3)
    cut_channels(net, groups, plan)
    torch.testing.assert_close(net(x), masked, atol=1e-5, rtol=1e-5)
    for name, keep in plan.keep.items():
        layer = net.get_submodule(name)
        assert getattr(layer, "out_channels", None) or layer.out_features == len(keep)
    rebuilt = trace_groups(net, EXAMPLE)
    alone = {name for name in groups if name not in rebuilt}  # one channel has to stay
    assert alone <= rebuilt.refused.keys()
    assert {n: 1 if n in alone else rebuilt[n].channels for n in groups} == plan.widths()


@pytest.mark.parametrize("network", NETWORKS)
def test_cut_model_trains(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    cut_channels(net, groups, random_plan(groups))
    net.train()(torch.randn(4, 3, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())


def test_frozen_parameters_stay_frozen_and_untouched_ones_identical():
    net = make(Residual)
    net.a1[0].weight.requires_grad_(False)
    head = net.head.bias
    groups = trace_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    assert not net.a1[0].weight.requires_grad
    assert net.a2[0].weight.requires_grad
    assert net.head.bias is head
    assert "head.bias" not in pruned.parameters
    assert pruned.parameters["a1.0.weight"].new is net.a1[0].weight


def test_a_plan_for_another_model_is_refused():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    with pytest.raises(KeyError, match="nowhere"):
        cut_channels(net, groups, PruningPlan({"nowhere": torch.tensor([0])}, {"nowhere": 2}))
    with pytest.raises(ValueError, match="made for 9 channels"):
        cut_channels(net, groups, PruningPlan({"stem.0": torch.tensor([0])}, {"stem.0": 9}))


def test_an_empty_plan_changes_nothing():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    before = list(net.parameters())
    assert not cut_channels(net, groups, PruningPlan()).parameters
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))


def test_masks_are_held_through_momentum_and_weight_decay():
    net = make(Residual).train()
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.01)

    def step():
        optimizer.zero_grad()
        net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()

    step()
    mask = ChannelMask(net, groups, plan)
    mask.hold([optimizer])
    for _ in range(3):
        step()
        assert mask.violations() == []
    kept = net.stem[0].weight[plan.keep["stem.0"]]
    assert bool((kept != 0).any(dim=(1, 2, 3)).all())
    mask.release()
    step()
    assert mask.violations()


def test_statistics_of_a_masked_norm_are_left_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    net[1].running_mean.fill_(3.0)
    groups = trace_groups(net, EXAMPLE)
    ChannelMask(net, groups, PruningPlan({"0": torch.tensor([0])}, {"0": 4})).apply()
    assert net[1].running_mean.tolist() == [3.0] * 4
    assert net[1].weight.tolist() == [1, 0, 0, 0]


class Follower(nn.Module):
    """Keeps a list of its channels, and of the calls that told it of a cut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())
        self.channels = torch.arange(outputs)
        self.calls: list[set[str]] = []

    def forward(self, x):
        return self.inner(x)

    def follow_cut(self, replaced):
        self.calls.append(set(replaced))
        weight = replaced["inner.0.weight"]
        assert weight.new is self.inner[0].weight
        if 0 in weight.kept:
            self.channels = self.channels[weight.kept[0]]


def test_submodules_follow_a_cut_of_their_own_parameters():
    net = nn.Sequential(Follower(3, 4), nn.Sequential(Follower(4, 5)), Follower(5, 2))
    groups = trace_groups(net, EXAMPLE)
    plan = PruningPlan({"0.inner.0": torch.tensor([1, 3])}, {"0.inner.0": 4})
    cut_channels(net, groups, plan)
    assert net[0].calls == [{"inner.0.weight", "inner.0.bias"}]
    assert net[0].channels.tolist() == [1, 3]
    assert net[1][0].calls == [{"inner.0.weight"}]  # its columns
    assert net[1][0].channels.tolist() == [0, 1, 2, 3, 4]
    assert net[2].calls == []
    assert net(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)


def test_the_model_itself_and_compiled_parts_follow():
    class Whole(Follower):
        def __init__(self):
            super().__init__(3, 4)
            self.head = torch.compile(Follower(4, 2), backend="eager")

        def forward(self, x):
            return self.head(self.inner(x))

    net = Whole()
    groups = trace_groups(net, EXAMPLE)
    cut_channels(net, groups, PruningPlan({"inner.0": torch.tensor([2])}, {"inner.0": 4}))
    assert net.channels.tolist() == [2]
    assert net.calls == [{"inner.0.weight", "inner.0.bias", "head.inner.0.weight"}]
    assert net.head._orig_mod.calls == [{"inner.0.weight"}]
