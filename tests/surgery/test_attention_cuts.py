"""Networks with nn.MultiheadAttention from trace to cut: heads and residual width."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from lightning_prune.graph.group import Size
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.pruned_attention import PrunedMultiheadAttention
from lightning_prune.surgery.scramble import scramble

pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning"),
]
WIDTH, HEADS = 16, 4


class Affine(nn.Module):
    """Takes the place of a norm whose statistics would change with the width."""

    eps = 1e-5

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return 0.3 * x * self.weight + self.bias


def without_norms(net):
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.LayerNorm):
            owner, _, own = name.rpartition(".")
            setattr(net.get_submodule(owner), own, Affine(module.normalized_shape[0]))
    return net


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, batch_first=True, **options)
        self.embed, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class Cross(nn.Module):
    """Queries, keys and values of three widths."""

    def __init__(self, kdim, vdim, need_weights, **options):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(5, WIDTH), nn.Linear(5, kdim), nn.Linear(5, vdim)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, kdim=kdim, vdim=vdim, **options)
        self.head, self.need_weights = nn.Linear(WIDTH, 3), need_weights

    def forward(self, x):
        query, key, value = self.q(x), self.k(x), self.v(x)
        found, _ = self.attend(query, key, value, need_weights=self.need_weights)
        return self.head(query + found)


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Linear(5, WIDTH), nn.Linear(5, WIDTH)
        self.net = nn.Transformer(WIDTH, HEADS, 1, 1, 24, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.head(self.net(self.source(x), self.target(x[:, :4])))


def heads_of(groups):
    return [name for name, group in groups.items() if group.sizes]


def half_of(groups, names):
    generator = torch.Generator().manual_seed(0)
    keep = {}
    for name in names:
        channels = groups[name].channels
        keep[name] = torch.randperm(channels, generator=generator)[: channels // 2].sort().values
    return PruningPlan(keep, {name: groups[name].channels for name in names})


def assert_masked_is_cut(net, x, names_of=list, numbers=None):
    """Cut half of some groups; return the cut network, and the groups that it has then."""
    scramble(net)
    net.eval()
    groups = trace_groups(net, x)
    names = names_of(groups)
    plan = half_of(groups, names)
    wide = copy.deepcopy(net)
    dense = wide(x).detach()
    ChannelMask(wide, groups, plan).apply()
    expected = wide(x).detach()
    assert float((dense - expected).abs().max()) > 0.01 * float(dense.abs().max())
    cut_channels(net, groups, plan)
    for owner, attribute in numbers or ():
        setattr(owner, attribute, getattr(owner, attribute) // 2)
    # With gradients and without: torch's fused kernels run without.
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            found = net(x)
        if any(isinstance(m, Affine) for m in net.modules()) and not enabled:
            continue  # the fused encoder takes their weights for those of norms
        scale = float(expected.abs().max())
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)
    net.train()
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval()
    again = trace_groups(net, x)
    left = {name: group.channels for name, group in again.items()}
    for name in names:
        assert left[name] == len(plan.keep[name])
    return net, again


X = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_heads_of_an_encoder(norm_first, bias):
    net = Encoder(norm_first=norm_first, bias=bias)
    net, again = assert_masked_is_cut(net, X, heads_of)
    layer = net.encoder.layers[0].self_attn
    assert isinstance(layer, PrunedMultiheadAttention)
    assert (layer.num_heads, layer.embed_dim, layer.in_proj_weight.shape) == (2, WIDTH, (24, WIDTH))
    assert [again[name].channels for name in heads_of(again)] == [2, 2]


@pytest.mark.parametrize("norm_first", [True, False])
def test_residual_width_of_an_encoder(norm_first):
    net = without_norms(Encoder(norm_first=norm_first))
    net, again = assert_masked_is_cut(net, X, lambda groups: ["embed"])
    layer = net.encoder.layers[0].self_attn
    assert (layer.num_heads, layer.embed_dim, layer.in_proj_weight.shape) == (4, 8, (48, 8))
    # Its heads can still go, and the first ones have gone from a layer that was cut before.
    net, again = assert_masked_is_cut(net, X, heads_of)
    assert type(net.encoder.layers[0].self_attn) is nn.MultiheadAttention  # 2 heads of 4
    assert [again[name].channels for name in heads_of(again)] == [2, 2]


def test_everything_of_an_encoder():
    net, _ = assert_masked_is_cut(Encoder(), X)
    assert net.encoder.layers[1].linear1.weight.shape == (12, 8)


OPTIONS = [{}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("widths", [(WIDTH, WIDTH), (12, 8)])
@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_of_three_inputs(options, widths, need_weights):
    net = Cross(*widths, need_weights, batch_first=need_weights, **options)
    net, again = assert_masked_is_cut(net, X)
    assert [again[name].channels for name in heads_of(again)] == [2]
    assert net.attend.embed_dim == 8
    assert net.attend.kdim == widths[0] // 2


def test_encoder_and_decoder():
    net, again = assert_masked_is_cut(Whole(), X, heads_of)
    assert [again[name].channels for name in heads_of(again)] == [2, 2, 2]
    net = Whole()
    net, _ = assert_masked_is_cut(net, X, numbers=[(net.net, "d_model")])
    assert net.net.decoder.layers[0].multihead_attn.embed_dim == 8


def test_vision_transformer():
    net = torchvision.models.vit_b_32(num_classes=10)
    net.encoder.layers = net.encoder.layers[:2]
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    net, again = assert_masked_is_cut(net, x, numbers=[(net, "hidden_dim")])
    assert again["conv_proj"].channels == 384
    layer = net.encoder.layers[1].self_attention
    assert (layer.num_heads, layer.embed_dim) == (6, 384)
    assert type(layer) is nn.MultiheadAttention


@pytest.mark.parametrize("make", [Encoder, Whole, lambda: Cross(12, 8, True, batch_first=True)])
def test_trials_accept_heads_and_widths(make):
    net = make()
    groups = build_groups(net, X)
    layers = [n for n, m in net.named_modules() if isinstance(m, nn.MultiheadAttention)]
    for name in layers:
        assert groups[name].channels == HEADS
        assert Size(name, "num_heads") in groups[name].sizes
    assert list(groups.refused) == ["head"]
