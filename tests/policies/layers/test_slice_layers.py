"""Which layers take part, and what masked channels leave of them."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.layers.slice_layers import (
    slice_layers,
    unmasked_filters,
    unmasked_weights,
)
from lightning_prune.surgery.mask import ChannelMask
from tests.networks import EXAMPLE, NETWORKS, Concat, make, random_plan


def test_all_convolutions_or_those_named():
    net = make(Concat)
    everything = ["left.0", "right.0", "fuse.0", "pyramid.0", "up", "head"]
    assert list(slice_layers(net, None, 2)) == everything
    assert list(slice_layers(net, ["!up", "!*.0"], 2)) == ["head"]
    assert list(slice_layers(net, ["left.*", "up"], 2)) == ["left.0", "up"]
    assert list(slice_layers(net, ["*", "!head"], 2)) == everything[:-1]
    assert slice_layers(net, None, 2)["up"].module is net.up


def test_linear_layers_by_name_only_and_frozen_or_shared_weights_once():
    net = nn.Sequential(nn.Linear(2, 4), nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1), nn.Conv1d(4, 6, 1))
    net[2].weight = net[1].weight
    net[3].weight.requires_grad_(False)
    assert list(slice_layers(net, None, 2)) == ["1"]
    assert list(slice_layers(net, ["0", "3"], 2)) == ["0", "3"]


def test_widths_that_do_not_divide_are_all_named():
    with pytest.raises(ValueError, match=r"left\.0 \(6\), right\.0 \(10\), .*head \(2\).*'!head'"):
        slice_layers(make(Concat), None, 4)


def test_unknown_names_list_their_neighbours():
    for pattern in ("fuze.0", "!fuze.0"):
        with pytest.raises(ValueError, match=r"did you mean .*'fuse\.0'"):
            slice_layers(make(Concat), [pattern], 2)


def test_computed_weights_are_refused():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), parametrizations.weight_norm(nn.Conv2d(8, 8, 1)))
    with pytest.raises(ValueError, match=r"weight of 1 is computed .*'!1'"):
        slice_layers(net, None, 8)
    assert list(slice_layers(net, ["!1"], 8)) == ["0"]


@pytest.mark.parametrize("layers", [[], "head", [1]])
def test_the_choice_is_checked(layers):
    with pytest.raises(ValueError, match="pass a list of layer names"):
        slice_layers(nn.Conv2d(3, 8, 1), layers, 8)


@pytest.mark.parametrize("network", NETWORKS)
def test_living_weights_are_those_that_a_channel_mask_leaves(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    unmasked = unmasked_weights(net, groups, plan)
    with torch.no_grad():
        for value in net.parameters():
            value.fill_(1)
    ChannelMask(net, groups, plan).apply()
    for name, layer in slice_layers(net, ["*"], 1).items():
        left = layer.weight != 0
        mask = unmasked.get(name, torch.ones_like(left))
        assert torch.equal(mask, left), name
        rows = unmasked_filters(layer, unmasked)
        expected = layer.filters(left).flatten(1).any(1).nonzero().flatten()
        assert torch.equal(
            torch.arange(len(layer.filters(left))) if rows is None else rows, expected
        )
