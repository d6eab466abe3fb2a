import pytest
import torch
from torch import nn
from torchvision.models import googlenet, inception_v3
from torchvision.models.segmentation import fcn_resnet50

from lightning_prune import PruningPlan
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask


class Deep(nn.Module):
    """Deep supervision: a convolution and a linear head that only training uses."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 3)
        self.norm = nn.BatchNorm2d(16)
        self.head, self.aux = nn.Linear(12, 4), nn.Conv2d(16, 6, 1)
        self.aux_head = nn.Linear(6, 4)

    def forward(self, x):
        features = self.norm(self.a(x)).relu()
        out = self.head(self.b(features).mean((2, 3)))
        if not self.training:
            return out
        return out, self.aux_head(self.aux(features).mean((2, 3)))


def halved(net, groups):
    keep = {name: torch.arange(group.channels // 2) for name, group in groups.items()}
    plan = PruningPlan(keep, {name: group.channels for name, group in groups.items()})
    ChannelMask(net, groups, plan).apply()
    cut_channels(net, groups, plan)
    return net


def test_a_head_that_only_training_uses_is_cut_along():
    net = Deep()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    random = torch.get_rng_state()
    groups = build_groups(net, torch.zeros(2, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert groups["a"].layers("consumer") == ("b", "aux")
    assert "only training" in groups.refused["aux"]
    assert groups.refused["aux_head"] == "its channels reach the output of the model"
    halved(net, groups)
    assert net.aux.in_channels == 8
    out, aux = net.train()(torch.randn(2, 3, 8, 8))
    assert out.shape == aux.shape == (2, 4)


def test_one_sample_is_doubled_for_batch_norms():
    class Narrow(Deep):
        def forward(self, x):
            out = super().forward(x)
            assert not self.training or len(x) > 1
            return out

    assert "aux" in trace_groups(Narrow(), torch.randn(1, 3, 8, 8))["a"].layers("consumer")


class Projected(nn.Module):
    """A head that only the training step calls, and a loss that says nothing of widths."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 4)
        self.projection = nn.Linear(16, 7)

    def forward(self, x):
        return self.b(self.a(x).relu())

    def training_step(self, x):
        features = self.a(x).relu()
        gram = self.b.weight.T @ self.b.weight
        return self.projection(features).square().mean() + features.mean() + gram.square().mean()


def test_a_head_of_the_training_step_is_cut_along():
    net, x = Projected(), torch.randn(3, 5)
    assert trace_groups(net, x)["a"].layers("consumer") == ("b",)
    groups = build_groups(net, x, step=lambda copy: copy.training_step(x))
    assert groups["a"].layers("consumer") == ("b", "projection")
    assert groups["a"].producers == ("a",)
    assert halved(net, groups).training_step(x).isfinite()


def test_a_failing_step_is_left_out_with_a_note():
    notes = []

    def step(_):
        raise KeyError("targets")

    groups = trace_groups(Projected(), torch.randn(3, 5), step=step, notify=notes.append)
    assert list(groups) == ["a"]
    assert notes == ["a training step is left out of the trace, as it fails: KeyError: 'targets'"]


@pytest.mark.parametrize(
    ("make", "size", "inputs"),
    [
        (
            lambda: googlenet(weights=None, init_weights=False, aux_logits=True),
            64,
            "aux1.conv.conv",
        ),
        (
            lambda: inception_v3(weights=None, init_weights=False, aux_logits=True),
            299,
            "AuxLogits.conv0.conv",
        ),
        (
            lambda: fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True),
            64,
            "aux_classifier.0",
        ),
    ],
)
def test_auxiliary_heads_of_torchvision(make, size, inputs):
    net, x = make(), torch.randn(1, 3, size, size)
    groups = trace_groups(net, x)
    readers = {layer for group in groups.values() for layer in group.layers("consumer")}
    assert inputs in readers
    halved(net, groups)
    net.train()(torch.randn(2, 3, size, size))


class Noisy(Deep):
    """Deep supervision behind noise: what is drawn at random has the size of the channels."""

    def __init__(self, drop):
        super().__init__()
        self.drop = drop

    def forward(self, x):
        features = self.drop(self.norm(self.a(x)).relu())
        out = self.head(self.b(features).mean((2, 3)))
        if not self.training:
            return out
        return out, self.aux_head(self.aux(features).mean((2, 3)))


class Drawn(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        scale = 2 * (torch.randn(x.shape[1], 1, 1) > 0)
        return x * scale + 0.1 * torch.randn_like(x) + torch.empty_like(x).uniform_() / 9


@pytest.mark.parametrize("drop", [nn.Dropout(), nn.Dropout2d(), nn.FeatureAlphaDropout(), Drawn()])
def test_readers_behind_random_numbers_are_found(drop):
    groups = build_groups(Noisy(drop), torch.zeros(2, 3, 8, 8))
    assert groups["a"].layers("consumer") == ("b", "aux")
    net = halved(Noisy(drop), groups)
    out, aux = net.train()(torch.randn(2, 3, 8, 8))
    assert out.shape == aux.shape == (2, 4)


def test_random_numbers_written_over_are_none():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            scale = torch.rand(4)
            scale.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
            return self.b(self.a(x) * scale[:, None, None])

    assert "no layer" in trace_groups(Written(), torch.zeros(1, 3, 4, 4)).refused["a"]
