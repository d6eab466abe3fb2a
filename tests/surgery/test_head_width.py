"""Heads of attention, their width, and both: found, tried, cut, trained and stored."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prune import PruningPlan
from lightning_prune.engine.verified_cut import verified_cut
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.optimizer import rebind_optimizer
from lightning_prune.surgery.scramble import scramble
from lightning_prune.testing import check_prunable

WIDTH, HEADS = 32, 4
EXAMPLE = torch.zeros(2, 5, 6)


class Fused(nn.Module):
    """Rows (3, heads, width); the scale is that of the width as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.heads, self.head_dim = HEADS, WIDTH // HEADS

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class ByHead(Fused):
    """Rows (heads, 3, width), widths unsaid."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, self.heads, 3, -1)
        y = F.scaled_dot_product_attention(*qkv.permute(3, 0, 2, 1, 4))
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class Constant(Fused):
    """The scale is a number of its own: nothing has to be scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = (WIDTH // HEADS) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class Apart(nn.Module):
    """Three layers, one number for the width of all heads; as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.heads, self.head_dim, self.all = HEADS, WIDTH // HEADS, WIDTH

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], self.heads, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(*x.shape[:2], self.all))


class Cosine(Fused):
    """Queries and keys are normed over the width of a head, then scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.k_norm = (nn.LayerNorm(WIDTH // HEADS) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class Torch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x, x, x, need_weights=False)[0]


class Net(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.layers = nn.ModuleList(kind() for _ in range(2))
        track_architecture(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean(1))


KINDS = [Fused, ByHead, Constant, Apart, Cosine, Torch]
ROOT = {Apart: "layers.0.q", Torch: "layers.0.own"}


def net_of(kind: type[nn.Module]) -> Net:
    torch.manual_seed(0)
    net = Net(kind)
    scramble(net, 1)
    return net.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["heads", "width", "both"])
def test_groups_are_heads_their_width_or_both(kind, attention):
    groups = build_groups(net_of(kind), EXAMPLE, attention=attention)
    root = ROOT.get(kind, "layers.0.qkv")
    found = [g.channels for name, g in groups.items() if name.partition(":")[0] == root]
    assert found == {"heads": [4], "width": [8], "both": [4, 8]}[attention]
    assert list(groups.refused) == ["head"]
    scales = kind not in (Constant, Torch) and attention != "heads"
    assert any(group.scaled for group in groups.values()) == scales


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["width", "both"])
def test_masked_is_cut_and_macs_are_those_predicted(kind, attention):
    found = check_prunable(net_of(kind), EXAMPLE, attention=attention)
    assert found.difference < 1e-5
    # A quarter: halved on both sides; an eighth of the projections with both factors.
    left = found.macs_after / found.macs_before
    assert left < (0.3 if attention == "width" else 0.18)


def plan_of(groups, kept):
    keep = {name: torch.arange(kept[name]) for name in kept}
    return PruningPlan(keep, {name: groups[name].channels for name in kept})


def test_scores_keep_the_scale_of_the_dense_width():
    net = net_of(Fused)
    groups = build_groups(net, EXAMPLE, attention="both")
    heads, width = groups["layers.0.qkv"], groups["layers.0.qkv:2"]
    assert [rows.index.tolist() for rows in width.scaled] == [list(range(32))]
    plan = plan_of(groups, {heads.name: 3, width.name: 2})
    kept = [8 * h + c for h in range(3) for c in range(2)]
    before = copy.deepcopy(net.layers[0].qkv)
    ChannelMask(net, groups, plan).apply()
    masked = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters())
    pruned = cut_channels(net, groups, plan)
    rebind_optimizer(optimizer, pruned)
    layer = net.layers[0]
    assert (layer.heads, layer.head_dim) == (3, 2)
    torch.testing.assert_close(layer.qkv.weight[:6], before.weight[kept] * 0.5)  # sqrt(2 / 8)
    torch.testing.assert_close(layer.qkv.bias[:6], before.bias[kept] * 0.5)
    others = [32 * part + row for part in (1, 2) for row in kept]
    assert torch.equal(layer.qkv.weight[6:], before.weight[others])
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(net(x), masked(x), rtol=1e-5, atol=1e-6)
    net.train()(x).square().mean().backward()
    optimizer.step()
    fresh = Net(Fused)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh.eval()(x), net.eval()(x))


def test_a_second_cut_starts_from_the_width_that_is_left():
    net, x = net_of(Apart), torch.randn(3, 5, 6)
    first = net(x)
    for width in (6, 3):
        groups = build_groups(net, EXAMPLE, attention="width")
        name = "layers.0.q"
        plan = plan_of(groups, {name: width})
        ChannelMask(net, groups, plan).apply()
        masked = net(x)
        assert verified_cut(net, groups, plan, x).output_difference < 1e-5
        torch.testing.assert_close(net(x), masked, rtol=1e-4, atol=1e-5)
        assert net.layers[0].head_dim == width
    assert not torch.allclose(net(x), first, atol=1e-3)


def test_what_attention_means_is_checked():
    with pytest.raises(ValueError, match=r"attention='head': pass 'heads' .* 'width' .* or 'both'"):
        build_groups(net_of(Fused), EXAMPLE, attention="head")


def test_layers_of_both_factors_are_selected_together():
    groups = trace_groups(net_of(Fused), EXAMPLE, attention="both")
    assert groups.select(["layers.0.qkv"]) == ("layers.0.qkv", "layers.0.qkv:2")
    assert groups.select(["layers.0.qkv:2"]) == ("layers.0.qkv:2",)


def test_numbers_in_modules_are_left_alone_on_demand():
    groups = build_groups(net_of(Fused), EXAMPLE, attributes=False)
    assert list(groups) == ["embed"]
    assert "forward pass of the cut network fails" in groups.refused["layers.0.qkv"]


class Square(nn.Module):
    """As many heads as each has channels; only names tell the two numbers apart."""

    def __init__(self, heads: str, width: str) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        setattr(self, heads, 4)
        setattr(self, width, 4)
        self.names = heads, width

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        x = self.embed(x)
        sizes = (getattr(self, name) for name in self.names)
        qkv = self.qkv(x).reshape(batch, tokens, 3, *sizes)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.head(x + self.proj(y.transpose(1, 2).flatten(2)))


NAMES = [("num_heads", "head_dim"), ("d", "h"), ("h", "d")]


@pytest.mark.parametrize(
    ("names", "attention"),
    # Names that say nothing are tried one after the other, not in pairs.
    [(NAMES[0], "both"), *((names, one) for names in NAMES for one in ("heads", "width"))],
)
def test_equal_numbers_are_told_apart(names, attention):
    groups = build_groups(Square(*names), EXAMPLE, attention=attention)
    wanted = {"heads": names[:1], "width": names[1:], "both": names}[attention]
    found = [g for name, g in groups.items() if "qkv" in name]
    assert tuple(g.sizes[0].attribute for g in found) == wanted
    assert check_prunable(Square(*names), EXAMPLE, attention=attention).difference < 1e-5
