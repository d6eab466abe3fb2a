import pytest
import torch
from torch import nn
from torchvision.models import shufflenet_v2_x0_5

from lightning_prune.graph.layer_kinds import is_producer
from lightning_prune.graph.trace import trace_groups
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


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.GroupNorm(2, 8), "GroupNorm mixes the channels"),
        (nn.Conv2d(8, 8, 3, groups=2), "groups=2 is neither dense nor depthwise"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1)), "parametrized"),
    ],
)
def test_unsupported_layers_are_refused_with_the_reason(layer, reason):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1))
    groups = trace_groups(net, EXAMPLE)
    assert "2" in groups
    assert "0" not in groups
    assert reason in groups.refused["0"]
    with pytest.raises(KeyError, match="cannot be pruned"):
        groups.group_of("0")


def test_tied_parameters_are_refused():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
    )
    net[2].weight = net[1].weight
    groups = trace_groups(net, EXAMPLE)
    assert not {"0", "1", "2"} & set(groups)
    assert "shares a parameter" in groups.refused["0"]


class Shuffle(nn.Module):
    """Swaps the halves of its channels by chunk and cat."""

    def __init__(self):
        super().__init__()
        self.first, self.last = conv_bn(3, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        return self.last(torch.cat([b, a], 1))


def test_split_channels_are_refused():
    groups = trace_groups(Shuffle(), EXAMPLE)
    assert not groups
    assert "split by chunk" in groups.refused["first.0"]


def test_what_cannot_be_traced_is_one_clear_error():
    with pytest.raises(ValueError, match=r"ShuffleNetV2 cannot be traced .* split followed by cat"):
        trace_groups(shufflenet_v2_x0_5(weights=None), torch.zeros(1, 3, 64, 64))


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


def test_layers_that_do_not_reach_the_output_are_refused():
    net = make(Residual)
    net.unused = nn.Conv2d(3, 3, 1)
    assert "does not call it" in trace_groups(net, EXAMPLE).refused["unused"]

    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.lost, self.kept = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.kept(x) + self.lost(x).detach().sum()

    assert "does not depend on it" in trace_groups(Detached(), EXAMPLE).refused["lost"]


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
    ("net", "example", "layers"),
    [
        (Shuffle(), EXAMPLE, {"first.0": "split by chunk"}),
        (
            nn.Sequential(
                nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 1)), nn.Conv2d(8, 2, 1)
            ),
            EXAMPLE,
            {"0": "its weight is computed"},
        ),
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            torch.zeros(1, 5, 8),
            {"self_attn.out_proj": "does not call it"},
        ),
    ],
    ids=["chunk", "parametrized", "attention"],
)
def test_every_layer_that_makes_channels_is_mentioned(net, example, layers):
    groups = trace_groups(net, example)
    assert every_producer(net) == {*groups.prunable_layers, *groups.refused}
    for layer, reason in layers.items():
        assert reason in groups.refused[layer]
        with pytest.raises(KeyError, match=reason):
            groups.group_of(layer)


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm)")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_computed_weights_stay_those_of_the_user(norm):
    net = nn.Sequential(norm(nn.Conv2d(3, 8, 1)), nn.Conv2d(8, 2, 1)).eval()
    before = net[0].weight
    groups = trace_groups(net, EXAMPLE)
    assert "its weight is computed" in groups.refused["0"]
    assert net[0].weight is before
