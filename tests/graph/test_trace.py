import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torchvision.models import shufflenet_v2_x0_5

from lightning_prune.graph.layer_kinds import is_producer
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.testing import check_prunable
from tests.graph.cut import mask_and_cut, partition, widths
from tests.networks import EXAMPLE, Chain, Concat, Depthwise, Residual, conv_bn, make


def test_chain_groups_and_flattened_consumer():
    groups = trace_groups(make(Chain), EXAMPLE)
    assert {n: g.layers("consumer") for n, g in groups.items()} == {
        "conv1": ("conv2",),
        "conv2": ("linear",),
        "linear": ("head",),
    }
    consumer = groups["conv2"].members[-1]
    # Channel c of conv2 becomes the 16 consecutive inputs 16c..16c+15 of the linear layer.
    order = consumer.index.argsort()
    assert consumer.channel[order].tolist() == [c for c in range(12) for _ in range(16)]
    assert groups.refused == {"head": "its channels reach the output of the model"}


def test_residual_ties_producers_and_names_the_first():
    groups = trace_groups(make(Residual), EXAMPLE)
    assert groups["stem.0"].producers == ("stem.0", "a2.0")
    assert groups["stem.0"].layers("carrier") == ("stem.1", "a2.1")
    assert groups["stem.0"].layers("consumer") == ("a1.0", "project.0", "b1.0")
    assert groups["project.0"].producers == ("project.0", "b2.0")
    assert groups.group_of("b2.0") is groups["project.0"]
    assert groups.prunable_layers == ("stem.0", "a1.0", "a2.0", "project.0", "b1.0", "b2.0")


def test_concat_offsets_and_repeats():
    groups = trace_groups(make(Concat), EXAMPLE)
    right = {m.layer: m for m in groups["right.0"].members}
    assert right["fuse.0"].index.tolist() == list(range(6, 16))
    assert right["norm"].index.tolist() == list(range(6, 16))
    pyramid = next(m for m in groups["fuse.0"].members if m.layer == "pyramid.0")
    pairs = sorted(zip(pyramid.index.tolist(), pyramid.channel.tolist(), strict=True))
    assert pairs == [(i, i % 8) for i in range(24)]
    assert groups["up"].channels == 6


def test_depthwise_and_gate_share_the_group_of_the_expansion():
    groups = trace_groups(make(Depthwise), EXAMPLE)
    group = groups["expand.0"]
    assert set(group.producers) == {"expand.0", "excite"}
    assert "depthwise.0" in group.layers("carrier")


def test_model_is_left_as_it_was():
    net = make(Residual)
    net.train()
    net.a1[1].eval()
    net.b1[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    trace_groups(net, EXAMPLE)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.a1[1].training
    assert net.a2[1].training
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["b1.0.weight"]
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_frozen_model_has_the_same_groups():
    net = make(Residual)
    expected = {n: g.layers("consumer") for n, g in trace_groups(net, EXAMPLE).items()}
    net.requires_grad_(False)
    assert {n: g.layers("consumer") for n, g in trace_groups(net, EXAMPLE).items()} == expected


def between(layer: nn.Module) -> nn.Sequential:
    """Return a layer of 8 channels between one that makes them and one that reads them."""
    return nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1))


def test_group_norms_keep_as_many_channels_in_each_group():
    groups = trace_groups(between(nn.GroupNorm(2, 8)), EXAMPLE)
    assert partition(groups, "0") == {"0": [[c, c + 4] for c in range(4)]}
    assert [(n.layer, n.size, n.channel.tolist()) for n in groups["0"].norms] == [
        ("1", 8, [0, 1, 2, 3, 0, 1, 2, 3])
    ]
    net = between(nn.GroupNorm(2, 8))
    assert mask_and_cut(net, EXAMPLE) < 1e-5
    assert widths(net) == [(3, 4), (4, 3), (3, 2)]


@pytest.mark.parametrize(
    ("parts", "rows"),
    [
        (2, [[c, c + 4] for c in range(4)]),  # few groups: the i-th channel of each
        (4, [[2 * c, 2 * c + 1] for c in range(4)]),  # whole groups
    ],
)
def test_grouped_convolutions_lose_the_same_places_or_whole_groups(parts, rows):
    net = between(nn.Conv2d(8, 8, 3, padding=1, groups=parts))
    groups = trace_groups(net, EXAMPLE)
    if parts == 2:
        assert partition(groups, "0") == {"0": rows}
        assert partition(groups, "1") == {"1": rows}
    else:  # a group of outputs goes with its inputs
        assert partition(groups, "0") == {"0": rows, "1": rows}
    assert groups["0"].bundle == 2


def test_places_of_a_grouped_convolution_are_cut_exactly():
    net = between(nn.Conv2d(8, 8, 3, padding=1, groups=2))
    assert mask_and_cut(net, EXAMPLE) < 1e-5
    assert widths(net) == [(3, 4), (4, 4), (4, 3), (3, 2)]
    assert net[1].groups == 2


def test_whole_groups_of_a_convolution_are_cut_exactly():
    net = between(nn.Conv2d(8, 8, 3, padding=1, groups=4))
    groups = build_groups(net, EXAMPLE)
    assert set(groups) == {"0", "2"}
    found = check_prunable(net, EXAMPLE)
    assert (found.groups, found.difference < 1e-5) == (2, True)


class Halves(nn.Module):
    """The two halves of the channels of a computed layer, added."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.last = layer, nn.Conv2d(4, 2, 1)

    def forward(self, x):
        first, second = self.layer(x).chunk(2, 1)
        return self.last(torch.relu(first) + torch.tanh(second))


class LowRank(nn.Module):
    """A weight plus a product of two thin matrices, as adapters have."""

    def __init__(self, rows: int, columns: int, rank: int = 3) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(rows, rank))
        self.down = nn.Parameter(torch.randn(rank, columns))

    def forward(self, weight):
        return weight + (self.up @ self.down).view_as(weight)


def low_rank(layer: nn.Module) -> nn.Module:
    weight = layer.weight.flatten(1)
    return parametrize.register_parametrization(layer, "weight", LowRank(*weight.shape))


COMPUTED = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "old weight_norm": nn.utils.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.3),
    "low rank": low_rank,
}


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm)")
@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_of_computed_weights_the_tensors_behind_them_are_cut(compute):
    torch.manual_seed(0)
    net = between(compute(nn.Conv2d(8, 8, 1)))
    groups = trace_groups(net, EXAMPLE)
    assert {n: g.channels for n, g in groups.items() if n in ("0", "1", "2")} == {
        "0": 8, "1": 8, "2": 6,
    }  # fmt: skip
    assert groups.group_of("1") is groups["1"]
    assert {"0", "1", "2"} <= set(groups.prunable_layers)
    assert set(groups.refused) == {"3"}
    assert [m.layer for m in groups["1"].sources] == ["1"]  # where the layer's output is
    with torch.no_grad():  # the tensors' own shapes do not matter, their parts in the weight do
        assert mask_and_cut(net, EXAMPLE) < 1e-5
    assert widths(net) == [(3, 4), (4, 4), (4, 3), (3, 2)]
    assert net[1].weight.shape == (4, 4, 1, 1)
    halves = Halves(compute(nn.Conv2d(3, 8, 1)))
    rows = [[c, c + 4] for c in range(4)]
    groups = trace_groups(halves, EXAMPLE)
    assert set(map(str, partition(groups, "layer").values())) == {str(rows)}
    assert mask_and_cut(halves, EXAMPLE) < 1e-5


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm)")
@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_a_cut_computed_weight_trains(compute):
    net = between(compute(nn.Conv2d(8, 8, 1))).train()
    mask_and_cut(net, EXAMPLE)
    net.train()(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_tied_parameters_are_one_group_and_stay_tied():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
    )
    net[2].weight = net[1].weight
    groups = trace_groups(net, EXAMPLE)
    assert partition(groups, "0") == {name: [[c] for c in range(8)] for name in "012"}
    assert groups["0"].layers("consumer") == ("1", "2", "3")
    assert list(groups.refused) == ["3"]
    assert mask_and_cut(net, EXAMPLE) < 1e-5
    assert net[2].weight is net[1].weight
    assert widths(net) == [(3, 4), (4, 4), (4, 4), (4, 2)]


class Shuffle(nn.Module):
    """Swaps the halves of its channels by chunk and cat."""

    def __init__(self):
        super().__init__()
        self.first, self.last = conv_bn(3, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        return self.last(torch.cat([b, a], 1))


def test_the_same_places_of_halves_go_together():
    groups = trace_groups(Shuffle(), EXAMPLE)
    assert partition(groups, "first.0") == {"first.0": [[c, c + 4] for c in range(4)]}
    consumer = groups["first.0"].members[-1]
    assert (consumer.layer, consumer.channel.tolist()) == ("last", [0, 1, 2, 3, 0, 1, 2, 3])
    assert mask_and_cut(make(Shuffle), EXAMPLE) < 1e-5


def test_a_network_of_halves_and_shuffles_is_pruned():
    torch.manual_seed(0)
    net = shufflenet_v2_x0_5(weights=None).eval()
    groups = trace_groups(net, torch.zeros(1, 3, 64, 64))
    assert sum(len(group.producers) for group in groups.values()) > 20
    assert mask_and_cut(net, torch.zeros(2, 3, 64, 64)) < 1e-5


def test_a_forward_pass_that_fails_is_one_clear_error():
    with pytest.raises(ValueError, match=r"ShuffleNetV2 in eval mode fails .* pass one that it"):
        trace_groups(shufflenet_v2_x0_5(weights=None), torch.zeros(1, 4, 64, 64))


class Decoded(nn.Module):
    """Ends in what misleads a tracer: reshapes, softmax, chunk and cat over other axes."""

    def __init__(self):
        super().__init__()
        self.body, self.last = conv_bn(3, 8), nn.Conv2d(8, 16, 1)

    def forward(self, x):
        maps = self.last(self.body(x)).flatten(2).transpose(1, 2).reshape(len(x), -1, 4, 4)
        near, far = (maps.softmax(-1) @ torch.arange(4.0)).chunk(2, -1)
        return {"boxes": torch.cat([far - near, near + far], -1).transpose(1, 2)}


def test_what_comes_after_the_last_layer_is_not_traced():
    groups = trace_groups(Decoded(), EXAMPLE)
    assert list(groups) == ["body.0"]
    assert list(groups.refused) == ["last"]


def test_layers_that_are_not_called_are_refused():
    net = make(Residual)
    net.unused = nn.Conv2d(3, 3, 1)
    assert "does not call it" in trace_groups(net, EXAMPLE).refused["unused"]


class Detached(nn.Module):
    """A layer of which the output reads a sum over channels alone, without a gradient."""

    def __init__(self):
        super().__init__()
        self.summed, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.last(x) + self.summed(x).detach().sum()


def test_gradients_do_not_matter():
    groups = trace_groups(Detached(), EXAMPLE)
    assert groups.refused == {"summed": "nothing reads its channels",
                              "last": "its channels reach the output of the model"}  # fmt: skip


def test_select_by_pattern_and_near_misses():
    groups = trace_groups(make(Residual), EXAMPLE)
    assert groups.select(None) == tuple(groups)
    assert groups.select(["a*"]) == ("stem.0", "a1.0")
    with pytest.raises(KeyError, match=r"did you mean 'stem\.0'"):
        groups.select(["steem.0"])


class Shared(nn.Module):
    """One activation with one slope, and a gate of one channel."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.PReLU()
        self.gate, self.last = nn.Conv2d(6, 1, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.act(self.b(self.act(self.a(x))))
        return self.last(x * self.gate(x).sigmoid())


def test_one_value_for_all_channels_is_left_alone():
    groups = trace_groups(Shared(), EXAMPLE)
    assert groups["b"].layers("consumer") == ("gate", "last")
    assert not any(
        m.layer in ("act", "gate") and m.role != "consumer"
        for g in groups.values()
        for m in g.members
    )


def every_producer(net):
    return {name for name, m in net.named_modules() if is_producer(m)}


@pytest.mark.parametrize(
    ("net", "example", "made", "refused"),
    [
        (Shuffle(), EXAMPLE, {"first.0"}, {"last"}),
        (
            nn.Sequential(
                nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 1)), nn.Conv2d(8, 2, 1)
            ),
            EXAMPLE,
            {"0"},
            {"1"},
        ),
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            torch.zeros(1, 5, 8),
            {"linear1"},
            {"self_attn.out_proj", "linear2"},
        ),
    ],
    ids=["chunk", "parametrized", "attention"],
)
def test_every_layer_that_makes_channels_is_mentioned(net, example, made, refused):
    groups = trace_groups(net, example)
    assert every_producer(net) == {*groups.prunable_layers, *groups.refused} & every_producer(net)
    assert every_producer(net) & set(groups.prunable_layers) == made
    assert set(groups.refused) == refused
    for layer, reason in groups.refused.items():
        with pytest.raises(KeyError, match=f"layer '{layer}' cannot be pruned: .*{reason[:9]}"):
            groups.group_of(layer)


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm)")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_computed_weights_stay_those_of_the_user(norm):
    net = nn.Sequential(norm(nn.Conv2d(3, 8, 1)), nn.Conv2d(8, 2, 1)).eval()
    before = net[0].weight
    values = before.clone()
    assert trace_groups(net, EXAMPLE)["0"].channels == 8
    assert net[0].weight.equal(values)
