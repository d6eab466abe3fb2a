"""Slices at a ratio: nested, by layer, apart from masked channels; oracles are loops."""

import math

import pytest
import torch
from torch import nn

from lightning_prune.functional.slices import as_slices, slice_norms
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.layers.slice_layers import slice_layers, unmasked_weights
from lightning_prune.policies.selection.slice_selection import SliceSelection
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.slice_mask import SliceMask
from tests.networks import EXAMPLE, Concat, Residual, make


def test_each_layer_loses_its_smallest_slices():
    net = make(Concat)
    layers = slice_layers(net, None, 2)
    held = {}
    for ratio in (0.2, 0.5, 0.8):
        masks = SliceSelection(layers, 2).select(ratio, held).masks
        for name, layer in layers.items():
            weight, mask = layer.filters(layer.weight.detach()), layer.filters(masks[name])
            apart = len(weight) // 2
            norms = {
                (b, *place): math.hypot(*(weight[(b + a * apart, *place)].item() for a in (0, 1)))
                for b in range(apart)
                for place in [tuple(p) for p in torch.ones(weight.shape[1:]).nonzero().tolist()]
            }
            gone = set(sorted(norms, key=norms.__getitem__)[: math.floor(ratio * len(norms))])
            for index in norms:
                both = [bool(mask[(index[0] + a * apart, *index[1:])]) for a in (0, 1)]
                assert both == [index not in gone] * 2, (name, index)
            if held:
                assert not (mask & ~layer.filters(held[name])).any()
        held = masks
        # Zeroed slices have norm 0; the next step starts from there.
        SliceMask(net, masks).apply()


def plan_of(groups, removed):
    keep = {
        n: torch.tensor([c for c in range(groups[n].channels) if c not in gone])
        for n, gone in removed.items()
    }
    return PruningPlan(keep, {name: groups[name].channels for name in removed})


@pytest.mark.parametrize("network", [Residual, Concat])
def test_choosing_beside_a_channel_mask_is_choosing_after_the_cut(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    removed = {n: {0, g.channels - 1} for n, g in groups.items() if g.channels >= 6}
    plan = plan_of(groups, removed)
    layers = slice_layers(net, None, 2)
    selection = SliceSelection(layers, 2)
    unmasked = unmasked_weights(net, groups, plan)
    assert unmasked
    earlier = selection.select(0.3).masks
    step = selection.select(0.5, earlier, unmasked)
    assert step.indivisible == ()
    shares = selection.zero_fractions(step.masks, unmasked)
    for name in layers:
        if name in unmasked:  # what channels mask stays as it was
            dead = ~unmasked[name]
            assert torch.equal(step.masks[name][dead], earlier[name][dead])
    follower = SliceMask(net, step.masks)
    pruned = cut_channels(net, groups, plan)
    masks = follower.after_cut(net, pruned).masks
    # Slices that were masked before come first only while they are still slices: start afresh.
    whole = 0
    for name, layer in layers.items():
        norms = slice_norms(layer.filters(layer.weight), 2)
        slices = as_slices(layer.filters(masks[name]), 2)
        assert torch.equal(slices.any(0), slices.all(0)), name
        zero = ~slices[0]
        assert int(zero.sum()) == math.floor(0.5 * zero.numel())
        assert shares[name] == pytest.approx(zero.float().mean().item())
        fresh = ~as_slices(layer.filters(earlier[name]), 2).any(0)
        if fresh.shape != zero.shape:
            assert norms[zero].max() <= norms[~zero].max()
        whole += int(zero.sum())
    assert whole > 0


def test_without_earlier_masks_it_is_the_same_choice_exactly():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    plan = plan_of(groups, {n: {1, 2} for n in groups})
    layers = slice_layers(net, None, 2)
    selection = SliceSelection(layers, 2, protect_first=True, norm=1)
    chosen = SliceMask(net, selection.select(0.4, None, unmasked_weights(net, groups, plan)).masks)
    masks = chosen.after_cut(net, cut_channels(net, groups, plan)).masks
    after = selection.select(0.4).masks
    for name in layers:
        assert torch.equal(masks[name], after[name]), name


def test_filters_that_do_not_divide_are_passed_over():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    plan = plan_of(groups, {"a1.0": {3}})
    selection = SliceSelection(slice_layers(net, None, 2), 2)
    first = selection.select(0.25).masks
    step = selection.select(0.5, first, unmasked_weights(net, groups, plan))
    assert step.indivisible == ("a1.0",)
    assert torch.equal(step.masks["a1.0"], first["a1.0"])
    assert not torch.equal(step.masks["a2.0"], first["a2.0"])


def test_linear_and_one_wide_kernels_are_first_places_throughout():
    net = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, (3, 1)))
    layers = slice_layers(net, ["*"], 2)
    masks = SliceSelection(layers, 2, protect_first=True).select(0.9).masks
    assert all(bool(mask.all()) for mask in masks.values())
    assert set(SliceSelection(layers, 2).zero_fractions(masks).values()) == {0.0}
