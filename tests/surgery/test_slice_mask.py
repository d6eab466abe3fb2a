"""Element masks hold, remember, give back and follow a cut; oracles are copies and indexing."""

import copy

import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.slice_mask import SliceMask
from tests.networks import EXAMPLE, NETWORKS, Residual, make, random_plan


def random_masks(net, share=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(module.weight.shape, generator=generator) > share
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }


def weights(net, masks):
    return {name: net.get_submodule(name).weight.detach().clone() for name in masks}


def train(net, optimizer, steps=2):
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        net(torch.randn(2, *EXAMPLE.shape[1:])).square().mean().backward()
        optimizer.step()


def test_only_masked_weights_are_zero_after_every_step():
    net = make(Residual)
    masks = random_masks(net)
    twin = copy.deepcopy(net)
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = [torch.optim.SGD(n.parameters(), **options) for n in (net, twin)]
    mask = SliceMask(net, masks)
    mask.hold([optimizers[0]])
    for name, value in weights(twin, masks).items():
        twin.get_submodule(name).weight.data.copy_(value * masks[name])
    for step in range(4):
        train(net, optimizers[0], 1)
        train(twin, optimizers[1], 1)
        for name in masks:  # by hand
            twin.get_submodule(name).weight.data.masked_fill_(~masks[name], 0)
            theirs = twin.get_submodule(name).weight
            assert torch.equal(net.get_submodule(name).weight, theirs), (step, name)
    assert mask.holds([optimizers[0]])
    assert not mask.holds([optimizers[1]])
    mask.release()
    train(net, optimizers[0])
    assert all(bool(net.get_submodule(n).weight[~m].any()) for n, m in masks.items())


def test_a_growing_mask_keeps_the_earliest_values_and_lets_go_what_it_does_not_hold():
    net = make(Residual)
    first, second = random_masks(net, 0.3), random_masks(net, 0.6, seed=1)
    dense = weights(net, first)
    early = SliceMask(net, first)
    early.remember()
    early.apply()
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(0.9).add_(0.01)
    early.apply()
    between = weights(net, first)
    late = SliceMask(net, second)
    late.remember(early)
    early.restore(late.masks)
    late.apply()
    for name, now in weights(net, first).items():
        lifted = ~first[name] & second[name]
        expected = torch.where(lifted, dense[name], between[name]) * second[name]
        assert torch.equal(now, expected), name
    late.restore()
    for name, now in weights(net, first).items():
        expected = torch.where(first[name], between[name], dense[name])
        assert torch.equal(now, expected), name


def test_a_mask_that_covers_nothing_leaves_the_weight_alone():
    net = make(Residual)
    masks = {name: torch.ones_like(mask) for name, mask in random_masks(net).items()}
    before = weights(net, masks)
    mask = SliceMask(net, masks)
    mask.remember()
    mask.apply()
    mask.restore()
    assert all(torch.equal(now, before[name]) for name, now in weights(net, masks).items())
    assert mask.state_dict()["originals"] == {}


@pytest.mark.parametrize("network", NETWORKS)
def test_masks_and_originals_follow_a_cut(network, tmp_path):
    net = make(network)
    masks = random_masks(net)
    dense = copy.deepcopy(net)
    mask = SliceMask(net, masks)
    mask.remember()
    mask.apply()
    torch.save(mask.state_dict(), tmp_path / "mask.pt")
    state = torch.load(tmp_path / "mask.pt", weights_only=True)
    plan = random_plan(trace_groups(net, EXAMPLE))
    pruned = cut_channels(net, trace_groups(net, EXAMPLE), plan)
    # The same cut of the dense model, and of one whose weights are the masks.
    marks = copy.deepcopy(dense)
    for name, value in masks.items():
        marks.get_submodule(name).weight.data.copy_(value)
    for other in (dense, marks):
        cut_channels(other, trace_groups(other, EXAMPLE), plan)
    after = SliceMask.from_state_dict(make(network), state).after_cut(net, pruned)
    for name in masks:
        left = marks.get_submodule(name).weight.bool()
        assert torch.equal(after.masks[name], left), name
        assert torch.equal(net.get_submodule(name).weight == 0, ~left), name
    with torch.no_grad():
        for name in masks:
            net.get_submodule(name).weight.add_(1)
    after.apply()
    for name in masks:
        assert torch.equal(net.get_submodule(name).weight == 0, ~after.masks[name])
    after.restore()
    for name in masks:
        theirs = dense.get_submodule(name).weight
        expected = torch.where(after.masks[name], net.get_submodule(name).weight, theirs)
        assert torch.equal(net.get_submodule(name).weight, expected), name


def test_precision_and_memory_format_may_change_in_between():
    net = make(Residual)
    masks = random_masks(net)
    mask = SliceMask(net, masks)
    mask.apply()
    net = net.to(memory_format=torch.channels_last).double()
    with torch.no_grad():
        for value in net.parameters():
            value.add_(1)
    mask.apply()
    for name in masks:
        assert torch.equal(net.get_submodule(name).weight == 0, ~masks[name])
    assert net.stem[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_masks_of_another_model_are_refused():
    net = make(Residual)
    with pytest.raises(KeyError, match="no layer 'nowhere'"):
        SliceMask(net, {"nowhere": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match="of shape"):
        SliceMask(net, {"head": torch.ones(1, 1, dtype=torch.bool)})
    mask = SliceMask(net, random_masks(net))
    mask.apply()
    with pytest.raises(RuntimeError, match=r"remember\(\)"):
        mask.restore()
