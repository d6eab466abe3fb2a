import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.criteria.group_scores import (
    batch_norm_scale,
    mean_activation,
    norm_members,
    weight_norm,
)
from tests.networks import EXAMPLE, Concat, Depthwise, make
from tests.policies.fixtures import residual, seen, shuffled_group, values


@pytest.mark.parametrize("p", [1, 2])
def test_norms_of_tied_producers_add_up_channel_by_channel(p):
    net, groups = residual()
    for group in groups.values():
        expected = [
            sum(
                np.linalg.norm(net.get_submodule(n).weight.detach().numpy()[c].ravel(), ord=p)
                for n in group.producers
            )
            for c in range(group.channels)
        ]
        np.testing.assert_allclose(weight_norm(net, group, p), expected, rtol=1e-5)


def test_a_transposed_convolution_has_its_channels_in_the_second_dimension():
    net = make(Concat)
    group = trace_groups(net, EXAMPLE)["up"]
    expected = [float(net.up.weight.detach().double()[:, c].abs().sum()) for c in range(6)]
    np.testing.assert_allclose(weight_norm(net, group, 1), expected, rtol=1e-6)


def test_channels_follow_the_members_order():
    net = nn.ModuleDict({"a": nn.Conv2d(2, 5, 1), "b": nn.Conv2d(2, 5, 1)})
    group = shuffled_group()
    order = group.members[1].channel.tolist()
    own = {name: layer.weight.detach().double().abs().sum((1, 2, 3)) for name, layer in net.items()}
    expected = own["a"].clone()
    for position, channel in enumerate(order):
        expected[channel] += own["b"][position]
    torch.testing.assert_close(weight_norm(net, group, 1), expected)


def test_scales_of_all_norms_of_a_group():
    net = make(Depthwise)
    groups = trace_groups(net, EXAMPLE)
    group = groups["expand.0"]
    assert [m.layer for m in norm_members(net, group)] == ["expand.1", "depthwise.1"]
    with torch.no_grad():
        net.expand[1].weight[3] = -5.0
    expected = net.expand[1].weight.detach().abs() + net.depthwise[1].weight.detach().abs()
    torch.testing.assert_close(batch_norm_scale(net, group), expected.double())


def test_norms_without_a_scale_do_not_count():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
    )
    groups = trace_groups(net, EXAMPLE)
    assert norm_members(net, groups["0"]) == norm_members(net, groups["2"]) == []


def test_mean_activation_is_the_mean_over_all_objects():
    _, groups = residual()
    group = groups["stem.0"]
    a, label = values(8, 1, objects=50)  # classes of unequal size
    b, _ = values(8, 2, objects=50)
    moments = {
        "stem.0": class_moments(a, label, 3),
        "a2.0": class_moments(b, label, 3),
    }
    expected = a.double().abs().mean(0) + b.double().abs().mean(0)
    torch.testing.assert_close(mean_activation(group, moments), expected)


def test_mean_activation_of_what_a_pass_saw():
    net, groups = residual()
    group = groups["a1.0"]
    rows, _ = values(6, 0)
    found = seen(net, ("a1.0",)).of("a1.0")
    torch.testing.assert_close(mean_activation(group, {"a1.0": found}), rows.double().abs().mean(0))
