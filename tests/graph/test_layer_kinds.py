"""Rules of kinds, computed weights, and blocks that are followed without one."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lightning_prune.graph.labels import TensorLabels, labels_of, set_labels
from lightning_prune.graph.layer_kinds import (
    applies_weight,
    output_dims,
    passes_on,
    register,
    scale_of,
    sync_sizes,
)
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.neural.network.rms_norm import RMSNorm
from lightning_prune.neural.network.weight_norm_conv import WeightNormConv3d
from lightning_prune.neural.network.zero_aware_group_norm import ZeroAwareGroupNorm
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.compare import eval_outputs, largest_difference, noise_like
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.testing import check_prunable
from tests.graph.cut import mask_and_cut, partition
from tests.graph.recurrent import MOVIE, Gated, Movie, Recurrent, Scale


def parts(group):
    return [(m.layer, m.role) for m in group.members]


# --- rules of kinds -------------------------------------------------------------------------


class Sorted(nn.Module):
    """Gives its channels in an order that depends on values: nothing that can be followed."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, x.mean((0, 2, 3)).argsort().argsort()]


class Picked(Sorted):
    """A subclass is of the kind too."""


def between(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.Conv2d(8, 2, 1))


IMAGE = torch.zeros(1, 3, 4, 4)


def test_a_rule_takes_the_place_of_what_operations_do():
    assert "sort runs over its channels" in trace_groups(between(Sorted()), IMAGE).refused["0"]
    seen = []

    def rule(module, trace, inputs, output):
        seen.append((type(module), trace.modules, tuple(inputs[0].shape)))
        trace.labels.pin(labels_of(inputs[0]).axes[1], "its channels are sorted")
        set_labels(output, None)

    register(Sorted, rule)
    try:
        for kind in (Sorted, Picked):
            groups = trace_groups(between(kind()), IMAGE)
            assert groups.refused["0"] == "its channels are sorted"
            assert not groups
            assert seen.pop()[0] is kind
    finally:
        register(Sorted, None)
    assert "sort runs over its channels" in trace_groups(between(Picked()), IMAGE).refused["0"]
    assert not seen


def test_a_rule_can_tie_channels():
    def rule(_module, trace, inputs, output):
        own = labels_of(inputs[0]).axes[1]
        trace.labels.join(own[:4], own[4:])
        set_labels(output, TensorLabels({1: own}))

    register(Sorted, rule)
    try:
        groups = trace_groups(between(Sorted()), IMAGE)
    finally:
        register(Sorted, None)
    assert partition(groups, "0") == {"0": [[c, c + 4] for c in range(4)]}


def test_only_classes_of_modules_are_kinds():
    for kind in (nn.ReLU(), int, "Conv2d"):
        with pytest.raises(TypeError, match=r"pass a class of torch\.nn\.Module"):
            register(kind, passes_on())


def test_whole_numbers_by_channel_are_cut_with_them():
    norm = ZeroAwareGroupNorm(2, 8)
    group = trace_groups(between(norm), IMAGE)["0"]
    assert parts(group) == [("0", "producer"), ("1", "carrier"), ("2", "consumer")]
    assert group.members[1].dims == (("weight", 0), ("bias", 0), ("group", 0))
    assert (group.channels, group.bundle, group.norms) == (8, 1, ())
    net = between(norm)
    cut_channels(
        net, trace_groups(net, IMAGE), PruningPlan({"0": torch.tensor([1, 2, 6])}, {"0": 8})
    )
    assert norm.group.tolist() == [0, 0, 1]
    assert trace_groups(net, IMAGE)["0"].channels == 3
    for seed in range(3):
        assert mask_and_cut(between(ZeroAwareGroupNorm(2, 8)), IMAGE, seed) < 1e-5


def test_a_layer_that_passes_on_the_input_of_the_model_keeps_its_channels():
    net = nn.Sequential(ZeroAwareGroupNorm(1, 3), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    assert list(trace_groups(net, IMAGE)) == ["1"]


def test_a_rule_that_names_a_tensor_that_is_not_there_says_so():
    register(Scale, lambda module, trace, *_: trace.axis(module, "scales", 0))
    try:
        with pytest.raises(ValueError, match=r"Scale has no parameter or buffer 'scales'"):
            trace_groups(between(Scale(8)), IMAGE)
    finally:
        register(Scale, None)


# --- what is known of layers ----------------------------------------------------------------


def test_attributes_of_the_same_names_on_other_layers_mean_nothing():
    model = Movie()
    model.head.channel_scale = 0.5
    model.project.output_vectors = ("gain",)
    assert scale_of(model.head) is None
    assert output_dims(model.project) == [("weight", 0), ("bias", 0)]


def test_scales_and_vectors_of_own_kinds_are_known():
    assert scale_of(RMSNorm(3)) == "gamma"
    assert scale_of(RMSNorm(3, affine=False)) is None
    conv = WeightNormConv3d(2, 3, 1)
    assert output_dims(conv) == [("weight", 0), ("bias", 0), ("gain", 0)]
    assert not applies_weight(conv)
    assert applies_weight(nn.Conv3d(2, 3, 1))
    assert not applies_weight(nn.Conv2d(4, 4, 1, groups=2))


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm)")
@pytest.mark.parametrize(
    "compute",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.3),
    ],
)
def test_sizes_follow_a_computed_weight(compute):
    for kind in (nn.Conv2d(6, 8, 3), nn.Linear(6, 8), nn.ConvTranspose2d(8, 6, 3)):
        layer = compute(kind)
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        names = ("in_channels", "out_channels", "in_features", "out_features")
        sizes = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
        for name in sizes:
            setattr(layer, name, 99)
        sync_sizes(layer)
        assert {name: getattr(layer, name) for name in sizes} == sizes
        assert all(torch.equal(v, before[n]) for n, v in layer.state_dict().items())


# --- blocks that are followed ---------------------------------------------------------------


def test_a_recurrent_block_is_one_group_with_all_its_parts():
    groups = trace_groups(Movie(), MOVIE)
    assert list(groups) == ["stem", "memory.write", "project"]
    hidden = groups["memory.write"]
    assert (hidden.channels, hidden.bundle, hidden.step, hidden.norms) == (12, 1, 1, ())
    assert parts(hidden) == [
        ("memory.write", "producer"), ("memory.repeat", "producer"), ("memory", "carrier"),
        ("memory.repeat", "consumer"), ("project", "consumer"),
    ]  # fmt: skip
    assert [(m.layer, m.dims) for m in hidden.members if m.role == "carrier"] == [
        ("memory", (("start", 0),))
    ]
    assert parts(groups["stem"]) == [
        ("stem", "producer"), ("scale", "carrier"), ("memory.write", "consumer"),
    ]  # fmt: skip


def test_channels_are_read_where_they_are_shown_one_to_one():
    net = nn.Sequential(Gated(3, 5), nn.ReLU(), nn.Conv2d(5, 2, 1))
    group = trace_groups(net, IMAGE)["0.both"]
    assert partition({"0.both": group}, "0.both") == {"0.both": [[c, c + 5] for c in range(5)]}
    (source,) = group.sources  # the block, not its gates
    assert (source.layer, source.role, source.dims) == ("0", "carrier", ())
    assert source.index.tolist() == source.channel.tolist() == list(range(5))


def test_the_model_is_left_as_it_was():
    model = Movie()
    before = dict(model.named_modules())
    state = copy.deepcopy(model.state_dict())
    trace_groups(model, MOVIE)
    assert dict(model.named_modules()) == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="in eval mode fails on an example input"):
        trace_groups(model, MOVIE[:, :1])  # of another width
    assert isinstance(model.memory, Recurrent)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


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


def test_norms_over_channels_are_known_and_cut_exactly():
    groups = trace_groups(Movie(12, norm_groups=3), MOVIE)
    group = groups["memory.write"]
    # The i-th of each norm group: as many are left in each.
    rows = [[c, c + 4, c + 8] for c in range(4)]
    assert partition(groups, "memory.write") == {"memory.write": rows, "memory.repeat": rows}
    assert (group.bundle, group.round_to(8)) == (3, 8)
    (norm,) = group.norms
    assert (norm.layer, norm.size, norm.index.tolist()) == ("memory.norm", 12, list(range(12)))
    for seed in range(3):
        assert mask_and_cut(Movie(12, norm_groups=3), MOVIE, seed) < 1e-5


def test_tied_parameters_inside_a_block_are_one_group():
    class Both(Movie):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Conv2d(8, 12, 3, padding=1)
            self.other.weight = self.memory.write.weight

        def forward(self, x: Tensor) -> Tensor:
            frames = self.scale(self.stem(x))
            both = self.memory(frames) + self.other(frames[:, :, 0])
            return self.head(self.project(both).mean((2, 3)))

    model = Both()
    groups = trace_groups(model, MOVIE)
    assert groups["memory.write"].producers == ("memory.write", "memory.repeat", "other")
    assert groups["stem"].layers("consumer") == ("memory.write", "other")
    assert mask_and_cut(model, MOVIE) < 1e-5
    assert model.other.weight is model.memory.write.weight
    assert model.other.weight.shape[:2] == (6, 4)
