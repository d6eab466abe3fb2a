"""The attention-score criterion against scores that are computed with and without each channel."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_prune.criteria import SNP, Evidence
from lightning_prune.graph.group import Member
from lightning_prune.observe.output_means import collect_outputs, source_outputs
from lightning_prune.surgery.build_groups import build_groups

HEADS, WIDTH = 3, 4


class Attention(nn.Module):
    """Separate layers whose widths no number couples; fewer heads of keys than of queries."""

    def __init__(self, kv_heads: int = HEADS) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.q = nn.Linear(6, HEADS * WIDTH)
        self.k, self.v = (nn.Linear(6, kv_heads * WIDTH) for _ in range(2))
        self.out, self.kv_heads = nn.Linear(HEADS * WIDTH, 2), kv_heads

    def split(self, x: Tensor, heads: int) -> Tensor:
        x = x.unflatten(-1, (heads, -1)).transpose(1, 2)
        return x.repeat_interleave(HEADS // heads, 1)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.embed(x).relu()
        return (
            self.split(self.q(x), HEADS),
            self.split(self.k(x), self.kv_heads),
            self.split(self.v(x), self.kv_heads),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attend(x)
        scores = q @ k.transpose(-1, -2) * WIDTH**-0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


class Fused(Attention):
    def __init__(self) -> None:
        super().__init__()
        del self.q, self.k, self.v
        self.qkv = nn.Linear(6, 3 * HEADS * WIDTH)

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv(self.embed(x).relu()).unflatten(-1, (3, HEADS, -1))
        return tuple(qkv.permute(2, 0, 3, 1, 4))


def judged(net, images):
    groups = build_groups(net, images, attention="width")
    outputs = source_outputs(net, groups, list(groups), images)
    means = collect_outputs(
        net, list(images.split(1)), outputs, SNP().output_values, nn.Module.__call__
    )
    known = {name: mean.value for name, mean in means.items()}
    return groups, {
        name: SNP().importance(Evidence(net, group, outputs=known))
        for name, group in groups.items()
    }


def change_of_scores(net, image) -> Tensor:
    """By how much scores change without each channel of the width, as the softmax sees them."""
    q, k, _ = net.attend(image)
    found = []
    for channel in range(WIDTH):
        left = [c for c in range(WIDTH) if c != channel]
        change = q @ k.transpose(-1, -2) - q[..., left] @ k[..., left].transpose(-1, -2)
        found.append((change - change.mean(-1, keepdim=True)).square().sum())
    return torch.stack(found)


@pytest.mark.parametrize("kv_heads", [3, 1])
def test_importance_is_the_change_of_scores(kv_heads):
    torch.manual_seed(0)
    net, image = Attention(kv_heads).eval(), torch.randn(1, 7, 5)
    groups, found = judged(net, image)
    assert groups["q"].channels == WIDTH
    torch.testing.assert_close(
        found["q"].float(), change_of_scores(net, image).detach(), rtol=1e-4, atol=1e-7
    )


def test_energies_are_averaged_over_images():
    torch.manual_seed(1)
    net, images = Attention().eval(), torch.randn(4, 7, 5)
    _, found = judged(net, images)
    q, k, _ = (part.detach().double() for part in net.attend(images))
    k = k - k.mean(2, keepdim=True)
    expected = (q.square().sum(2).mean(0) * k.square().sum(2).mean(0)).sum(0)
    torch.testing.assert_close(found["q"], expected, rtol=1e-5, atol=1e-9)


def test_values_and_plain_channels_count_by_what_they_feed_their_consumers():
    torch.manual_seed(2)
    net, images = Attention().eval(), torch.randn(2, 7, 5)
    _, found = judged(net, images)
    hidden = net.embed(images).relu().detach().double().square().sum(1).mean(0)
    consumers = sum(
        layer.weight.detach().double().square().sum(0) for layer in (net.q, net.k, net.v)
    )
    torch.testing.assert_close(found["embed"], hidden * consumers, rtol=1e-5, atol=1e-9)
    v = net.v(net.embed(images).relu()).detach().double().square().sum(1).mean(0)
    fed = v.view(HEADS, WIDTH).sum(0)
    columns = net.out.weight.detach().double().square().sum(0).view(HEADS, WIDTH).sum(0)
    torch.testing.assert_close(found["v"], fed * columns, rtol=1e-5, atol=1e-9)


def test_scores_and_values_of_a_fused_layer_both_count():
    torch.manual_seed(3)
    net, image = Fused().eval(), torch.randn(1, 7, 5)
    groups, found = judged(net, image)
    assert groups["qkv"].channels == WIDTH
    change = change_of_scores(net, image).detach().double()
    v = net.attend(image)[2].detach().double().square().sum((0, 1, 2))
    columns = net.out.weight.detach().double().square().sum(0).view(HEADS, WIDTH).sum(0)
    expected = change / change.mean() + v * columns / (v * columns).mean()
    torch.testing.assert_close(found["qkv"], expected, rtol=1e-4, atol=1e-6)


def test_without_activations_it_says_what_to_pass():
    net = Attention()
    group = build_groups(net, torch.zeros(1, 7, 5), attention="width")["q"]
    with pytest.raises(ValueError, match="no activation of group 'q' was collected"):
        SNP().importance(Evidence(net, group))


def test_a_query_that_gives_nothing_goes_first():
    torch.manual_seed(4)
    net, image = Attention().eval(), torch.randn(1, 7, 5)
    with torch.no_grad():
        for layer in (net.q, net.k):
            layer.weight.view(HEADS, WIDTH, 6)[:, 2] *= 0.01
            layer.bias.view(HEADS, WIDTH)[:, 2] = 5.0  # large, and the same for all tokens
    _, found = judged(net, image)
    assert int(found["q"].argmin()) == 2
    assert not F.softmax(found["q"], 0).isnan().any()


def test_queries_that_no_layer_shows_are_refused_before_training():
    net = Attention()
    for layer in (net.q, net.k):
        weight_norm(layer)
    image = torch.zeros(1, 7, 5)
    groups = build_groups(net, image, attention="width")
    group = next(group for group in groups.values() if group.scores)
    with pytest.raises(ValueError, match=r"criterion snp: group 'q'.*parametrizations.*apoz"):
        SNP().check(net, replace(group, members=(*group.members, shown(net))))


def shown(net):
    """A source beside the queries, so that something of the group can be read."""
    rows = torch.arange(HEADS * WIDTH)
    return Member("v", "producer", rows, rows % WIDTH, (("weight", 0),))
