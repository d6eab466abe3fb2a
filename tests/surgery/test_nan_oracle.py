from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.graph.group import Member
from lightning_prune.graph.trace import trace_groups
from lightning_prune.testing import nan_oracle
from tests.networks import EXAMPLE, NETWORKS, Residual, make


@pytest.mark.parametrize("network", NETWORKS)
def test_claims_of_sound_networks_are_what_nan_shows(network):
    net = make(network).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(4)
    state = torch.get_rng_state()
    found = nan_oracle(net, EXAMPLE, trace_groups(net, EXAMPLE))
    assert found.mismatches == ()
    assert found.places >= found.classes > 0
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def changed(groups, name, change):
    """Return the groups with the members of one changed."""
    group = groups[name]
    members = [new for member in group.members if (new := change(member)) is not None]
    return {name: replace(group, members=tuple(members))}


def shortened(member, channel):
    kept = member.channel != channel
    return replace(member, index=member.index[kept], channel=member.channel[kept])


def wrong_tensors(groups, net=None, example=EXAMPLE):
    found = nan_oracle(net or make(Residual), example, groups, classes=8)
    return {mismatch.tensor for mismatch in found.mismatches}


def test_a_missing_column_of_a_consumer_is_found():
    groups = trace_groups(make(Residual), EXAMPLE)
    one = changed(groups, "a1.0", lambda m: shortened(m, 3) if m.layer == "a2.0" else m)
    found = nan_oracle(make(Residual), EXAMPLE, one, classes=6)
    assert [(m.group, m.channel, m.tensor, m.claimed, m.observed) for m in found.mismatches] == [
        ("a1.0", 3, "a2.0.weight", (), (3,))
    ]


def test_an_extra_column_of_a_consumer_is_found():
    groups = trace_groups(make(Residual), EXAMPLE)
    extra = Member("b2.0", "consumer", torch.tensor([4]), torch.tensor([2]), (("weight", 1),))
    group = replace(groups["a1.0"], members=(*groups["a1.0"].members, extra))
    found = nan_oracle(make(Residual), EXAMPLE, {"a1.0": group}, classes=6)
    assert [(m.channel, m.tensor, m.claimed, m.observed) for m in found.mismatches] == [
        (2, "b2.0.weight", (4,), ())
    ]


def test_columns_in_another_order_are_found():
    groups = trace_groups(make(Residual), EXAMPLE)

    def flipped(member):
        if member.layer != "a2.0":
            return member
        return replace(member, channel=member.channel.flip(0))

    assert wrong_tensors(changed(groups, "a1.0", flipped)) == {"a2.0.weight"}


def test_a_missing_consumer_is_found():
    groups = trace_groups(make(Residual), EXAMPLE)
    assert groups["stem.0"].layers("consumer") == ("a1.0", "project.0", "b1.0")
    rest = changed(groups, "stem.0", lambda m: None if m.layer == "b1.0" else m)
    assert wrong_tensors(rest) == {"b1.0.weight"}


def test_a_missing_producer_is_found_where_its_rows_are_added():
    groups = trace_groups(make(Residual), EXAMPLE)
    rest = changed(groups, "stem.0", lambda m: None if m.layer.startswith("a2") else m)
    assert wrong_tensors(rest) == {"its partners"}


def test_a_missing_carrier_is_found():
    groups = trace_groups(make(Residual), EXAMPLE)
    rest = changed(groups, "a1.0", lambda m: None if m.role == "carrier" else m)
    assert wrong_tensors(rest) == {"its partners"}


def test_channels_of_the_output_are_found():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    every = torch.arange(2)
    made = Member("1", "producer", every, every, (("weight", 0), ("bias", 0)))
    group = replace(trace_groups(net, torch.ones(1, 3))["0"], name="1", channels=2, members=(made,))
    assert wrong_tensors({"1": group}, net, torch.ones(1, 3)) == {"the output"}


class Block(nn.Module):
    """Attention with a fused projection, a layer norm and an MLP, as in transformers."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads = heads
        self.embed, self.place = nn.Linear(5, width), nn.Parameter(torch.randn(1, 6, width))
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.embed(x) + self.place
        batch, tokens = x.shape[:2]
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)
        x = x + self.proj(mixed)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


def test_heads_and_norms_over_channels():
    net, x = Block(), torch.randn(2, 6, 5)
    groups = trace_groups(net, x)
    found = nan_oracle(net, x, groups, classes=24)
    assert found.mismatches == ()
    assert found.mixed > 0
    heads = next(group for group in groups.values() if "qkv" in group.producers)
    rest = changed(groups, heads.name, lambda m: shortened(m, 1) if m.layer == "proj" else m)
    assert wrong_tensors(rest, net, x) == {"proj.weight"}
    width = {m.layer for m in groups["embed"].members}
    assert {"", "norm", "norm2", "proj", "down", "head"} <= width
    no_place = changed(groups, "embed", lambda m: None if m.layer == "" else m)
    assert wrong_tensors(no_place, net, x) == {"its partners"}


def test_every_row_of_a_lattice_is_followed():
    class Chunked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(12, 5, 1)
            self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.c = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            first, second = self.grouped(self.a(x)).chunk(2, 1)
            return self.b(torch.cat([first, second, self.c(second)], 1))

    net = Chunked()
    groups = trace_groups(net, EXAMPLE)
    found = nan_oracle(net, EXAMPLE, groups)
    assert found.mismatches == ()
    assert found.places > found.classes


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, lambda layer: layer])
def test_computed_weights_and_recurrence(wrap):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = wrap(nn.Linear(4, 6)), wrap(nn.Linear(6, 8))
            self.gru, self.c = nn.GRU(8, 7, batch_first=True), nn.Linear(7, 2)

        def forward(self, x):
            return self.c(self.gru(self.b(torch.tanh(self.a(x))))[0])

    net, x = Net(), torch.randn(2, 3, 4)
    found = nan_oracle(net, x, trace_groups(net, x))
    assert found.mismatches == ()
    assert found.places > 0


def test_the_number_of_classes_is_positive():
    with pytest.raises(ValueError, match="classes=0 is not positive"):
        nan_oracle(make(Residual), EXAMPLE, classes=0)


def test_lengths_over_all_rows_are_no_way_from_one_to_another():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3), dim=2)
            self.b = nn.Linear(6, 2)

        def forward(self, x):
            return self.b(self.a(x).mean(2))

    net, x = Net(), torch.randn(2, 4, 8)
    found = nan_oracle(net, x, trace_groups(net, x))
    assert (found.classes, found.places, found.mismatches) == (6, 6, ())
