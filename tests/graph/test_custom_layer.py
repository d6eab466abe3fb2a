import copy

import pytest
import torch
from torch import nn

from lightning_prune.graph.custom_layer import CarrierProxy, CustomLayer, custom_layers
from lightning_prune.graph.layer_kinds import scale_of
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.compare import eval_outputs, largest_difference, noise_like
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.testing import check_prunable
from tests.graph.custom import MOVIE, Movie, Recurrent, Scale


def test_the_outermost_custom_layers_are_found():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Scale(8), Recurrent(8, 4))
    model[2].norm = Scale(4)
    assert list(custom_layers(model)) == ["1", "2"]
    assert isinstance(model[1], CustomLayer)
    assert not isinstance(model[0], CustomLayer)


def test_attributes_of_the_same_names_on_other_layers_mean_nothing():
    model = Movie()
    model.project.channel_dims, model.head.channel_scale = 3, 0.5
    assert "project" in trace_groups(model, MOVIE)
    assert scale_of(model.head) is None


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (2, 5, 3, 4, 6)])
def test_a_carrier_proxy_takes_any_shape(shape):
    assert CarrierProxy(5).eval()(torch.ones(shape)).shape == shape


def test_a_recurrent_block_is_one_group_with_all_its_parts():
    groups = trace_groups(Movie(), MOVIE)
    assert list(groups) == ["stem", "memory.write", "project"]
    hidden = groups["memory.write"]
    assert (hidden.channels, hidden.bundle, hidden.step, hidden.mixed_by) == (12, 1, 1, ())
    assert [(m.layer, m.role) for m in hidden.members] == [
        ("memory.write", "producer"), ("memory.repeat", "producer"), ("memory", "carrier"),
        ("memory.repeat", "consumer"), ("project", "consumer"),
    ]  # fmt: skip
    assert [member.layer for member in hidden.sources] == ["memory"]
    assert [(m.layer, m.role) for m in groups["stem"].members] == [
        ("stem", "producer"), ("scale", "carrier"), ("memory.write", "consumer"),
    ]  # fmt: skip


def test_the_model_is_left_as_it_was():
    model = Movie()
    before = dict(model.named_modules())
    state = copy.deepcopy(model.state_dict())
    trace_groups(model, MOVIE)
    assert dict(model.named_modules()) == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.memory.proxy = lambda: nn.Conv2d(1, 1, 1)  # of another width: tracing fails
    with pytest.raises(ValueError, match="cannot be traced"):
        trace_groups(model, MOVIE)
    assert isinstance(model.memory, Recurrent)


@pytest.mark.parametrize("hidden", [12, 5])
@pytest.mark.parametrize("seed", range(3))
def test_masked_is_cut(hidden, seed):
    found = check_prunable(Movie(hidden), MOVIE, seed=seed)
    assert found.groups == 3
    assert found.difference < 1e-5
    assert found.refused == {"head": "its channels reach the output of the model"}


def test_grouped_convolutions_lose_bundles():
    torch.manual_seed(0)
    model = Movie(12, groups=3)
    group = trace_groups(model, MOVIE)["memory.write"]
    assert (group.channels, group.bundle, group.round_to(8), group.round_to(9)) == (4, 3, 8, 3)
    plan = PruningPlan({group.name: torch.tensor([1, 3])}, {group.name: 4})
    example = noise_like(MOVIE)
    groups, macs = (
        trace_groups(model, example),
        MacModel.of(model, trace_groups(model, MOVIE), MOVIE),
    )
    kept = model.memory.repeat.weight.detach()[[1, 3, 5, 7, 9, 11]][:, [1, 3]]
    ChannelMask(model, groups, plan).apply()
    masked = eval_outputs(model, example)
    cut_channels(model, groups, plan)
    assert torch.equal(model.memory.repeat.weight, kept)
    assert (model.memory.repeat.in_channels, model.memory.repeat.groups) == (6, 3)
    assert largest_difference(masked, eval_outputs(model, example)) < 1e-5
    assert count_macs(model, example) == macs.remaining({group.name: 2})


def test_norms_over_channels_are_reported_and_bound_the_width():
    model = Movie(12, norm_groups=3)
    group = trace_groups(model, MOVIE)["memory.write"]
    assert (group.step, group.mixed_by, group.round_to(8)) == (3, ("memory.norm",), 24)
    found = check_prunable(model, MOVIE)
    assert found.mixed_by == ("memory.norm",)
    assert found.difference > 1e-5  # by nature; the rest of the cut is exact, or it would raise


def test_what_a_layer_refuses_is_refused_with_its_reason():
    model = Movie()
    own = model.memory.channel_members
    model.memory.channel_members = lambda role: (
        "reads in groups" if role == "consumer" else own(role)
    )
    groups = trace_groups(model, MOVIE)
    assert groups.refused["stem"] == "memory: reads in groups"
    assert "memory.write" in groups


def test_tied_parameters_inside_a_block_are_seen():
    model = Movie()
    model.project.bias = nn.Parameter(torch.zeros(6))
    other = nn.Conv2d(8, 12, 3, padding=1)
    other.weight = model.memory.write.weight
    model.memory.other = other
    groups = trace_groups(model, MOVIE)
    assert "memory.write shares a parameter with memory.other" in groups.refused["memory.write"]
