import pytest
from torch import nn

from lightning_prune.annotations import fits, wanted
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.layers.layer_rule import LayerChoice, select_groups
from lightning_prune.policies.layers.widest_layers import WidestLayers
from tests.networks import EXAMPLE, Residual, make


@pytest.fixture(scope="module")
def net():
    model = make(Residual)
    return model, trace_groups(model, EXAMPLE)


def test_all_named_and_by_a_rule(net):
    model, groups = net
    assert select_groups(None, model, groups) == tuple(groups)
    # A tied layer stands for its group; the order is that of the forward pass.
    assert select_groups(["b1.*", "a2.0"], model, groups) == ("stem.0", "b1.0")
    rule = WidestLayers(1, depth=1)
    assert select_groups(rule, model, groups) == rule.select(model, groups)


def test_what_a_pattern_matches_in_vain_is_said_with_a_count(net):
    model, groups = net
    refused = {"b1.9": "it is the output", "b1.x": "x", "other": "y"}
    some = ChannelGroups(groups.groups, refused, groups.order)
    said = (
        r"matches 2 layers that cannot be pruned .* beside 1 groups .*: b1.9 \(it is the output\)"
    )
    with pytest.warns(UserWarning, match=said + " and 1 more"):
        assert select_groups(["b1.*", "b1.0"], model, some) == ("b1.0",)


def test_what_cannot_be_selected(net):
    model, groups = net
    with pytest.raises(ValueError, match=r"layers: no layer 'c1.0'.*did you mean"):
        select_groups(["c1.0"], model, groups)
    empty = ChannelGroups({}, {"0": "nothing reads its channels"})
    with pytest.raises(ValueError, match=r"no layer of Linear can be pruned \(0: nothing reads"):
        select_groups(None, nn.Linear(2, 2), empty)


@pytest.mark.parametrize("layers", ["stem.0", [], [1], 3])
def test_a_choice_is_checked_before_there_is_a_model(layers):
    assert not fits(LayerChoice, layers)
    assert wanted(LayerChoice).startswith("a list of layer names or patterns such as ['backbone.")


@pytest.mark.parametrize("layers", [None, ["a.*"], ("a", "b"), WidestLayers(1)])
def test_good_choices_pass(layers):
    assert fits(LayerChoice, layers)
