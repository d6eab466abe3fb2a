import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.graph.estimated_time import estimated_time
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery import trial_cut
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.compare import eval_outputs, largest_difference, noise_like
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.scramble import scramble
from lightning_prune.surgery.trial_cut import try_groups, what_is_left_out
from tests.networks import EXAMPLE, NETWORKS, Residual, make, random_plan
from tests.surgery.faulty import FAULTS, IMAGE, Between


@pytest.fixture
def faults(monkeypatch):
    """Count the trials."""
    seen: list[int] = []
    original = trial_cut._Trial.fault

    def count(self, names, dtype=None):
        seen.append(len(names))
        return original(self, names, dtype)

    monkeypatch.setattr(trial_cut._Trial, "fault", count)
    return seen


@pytest.mark.parametrize("network", NETWORKS)
def test_sound_groups_are_accepted_in_one_trial(network, faults):
    net = make(network)
    traced = trace_groups(net, EXAMPLE)
    accepted, refused = try_groups(net, EXAMPLE, traced)
    assert refused == {}
    assert list(accepted) == list(traced)
    assert accepted.refused == traced.refused
    assert accepted.order == traced.order
    assert faults == [len(traced)]


@pytest.mark.parametrize(
    ("network", "example", "bad", "good"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_what_a_cut_breaks_is_refused_and_the_rest_is_right(network, example, bad, good):
    torch.manual_seed(0)
    net = network()
    groups = build_groups(net, example)
    assert bad <= groups.refused.keys()
    assert good <= set(groups.prunable_layers)
    scramble(net, seed=5)
    example = noise_like(example, 7)
    for seed, share in ((1, 0.5), (2, 0.3)):
        masked, cut = network(), network()
        masked.load_state_dict(net.state_dict())
        cut.load_state_dict(net.state_dict())
        plan = random_plan(groups, seed, share)
        ChannelMask(masked, groups, plan).apply()
        cut_channels(cut, groups, plan)
        assert largest_difference(eval_outputs(masked, example), eval_outputs(cut, example)) < 1e-5
        cut.train()(example)
        widths = plan.widths()
        assert MacModel.of(net, groups, example).remaining(widths) == count_macs(cut, example)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("softmax", r"_softmax runs over its channels \(faulty.py:"),
        (
            "written size",
            r"pass of the cut network fails: RuntimeError: shape '\[-1, 384\]'",
        ),
        ("group norm", "takes statistics over channels that are cut"),
        ("threshold", r"_softmax runs over its channels \(faulty.py:"),
    ],
)
def test_the_reason_says_what_happened(name, reason):
    network, example, bad, _ = next(fault[1:] for fault in FAULTS if fault[0] == name)
    net = network()
    refused = build_groups(net, example).refused
    (only,) = bad
    with pytest.raises(ValueError, match=reason):
        raise ValueError(refused[only])


def test_the_model_is_left_as_it_was():
    net = make(Residual).train()
    net.a1[1].eval()
    net.lock = threading.Lock()  # cannot be copied
    seen = []
    net.stem.register_forward_hook(lambda *_: seen.append(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    try_groups(net, EXAMPLE, trace_groups(net, EXAMPLE))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.a1[1].training
    assert len(net.stem._forward_hooks) == 1
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_training_step_may_take_channels_too():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.projection = Between(torch.relu), nn.Linear(12, 3)

        def forward(self, x):
            return self.body(x)

        def step(self, x):
            return self.projection(self.body.b(self.body.a(x)).mean((2, 3))).sum()

    net = Projected()
    traced = trace_groups(net, IMAGE)
    assert try_groups(net, IMAGE, traced)[1] == {}
    accepted, refused = try_groups(net, IMAGE, traced, step=lambda copy: copy.step(IMAGE))
    assert list(accepted) == ["body.a"]
    assert refused.keys() == {"body.b"}
    assert "training_step fails once its channels are cut" in refused["body.b"]

    def broken(copy):
        raise RuntimeError("not without a Trainer")

    assert try_groups(net, IMAGE, traced, step=broken)[1] == {}


def test_groups_that_cannot_be_cut_together_are_thinned_out():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3, 8, 1) for _ in range(4))
            self.heads = nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(4))

        def forward(self, x):
            maps = [layer(x) for layer in self.layers]
            if maps[1].shape[1] < 8 and maps[2].shape[1] < 8:
                raise RuntimeError("one of the two must be whole")
            return sum(head(y) for head, y in zip(self.heads, maps, strict=True))

    net = Either()
    accepted, refused = try_groups(net, IMAGE, trace_groups(net, IMAGE))
    assert list(accepted) == ["layers.0", "layers.2", "layers.3"]
    assert "together with other groups" in refused["layers.1"]
    assert "one of the two must be whole" in refused["layers.1"]


def test_a_row_of_repeated_blocks_costs_few_trials(faults, monkeypatch):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad, self.good = nn.Linear(16, 24), nn.Linear(24, 20)
            self.down = nn.Linear(20, 16)

        def forward(self, x):
            return self.down(self.good(self.bad(x).view(-1, 5, 24)).relu())

    net = nn.Sequential(*(Block() for _ in range(8)), nn.Flatten(), nn.Linear(80, 3))
    attempts = []
    original = trial_cut._Trial._attempt
    monkeypatch.setattr(
        trial_cut._Trial,
        "_attempt",
        lambda trial, groups: attempts.append(1) or original(trial, groups),
    )
    x, notified = torch.randn(1, 5, 16), []
    accepted, refused = try_groups(net, x, trace_groups(net, x), notify=notified.append)
    assert {f"{n}.good" for n in range(8)} <= set(accepted)
    assert refused.keys() == {f"{n}.bad" for n in range(8)}
    assert all("'[-1, 5, 24]' is invalid" in reason for reason in refused.values())
    assert len(faults) == 2  # all, then what is left
    assert len(attempts) < 40
    assert len(notified) == 1
    assert notified[0].startswith(f"trying what else has to change with {faults[0]} groups")


def test_products_of_activations_are_predicted():
    class NonLocal(nn.Module):
        def __init__(self):
            super().__init__()
            self.i, self.o = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 16, 1)
            self.t, self.p, self.g = (nn.Conv2d(16, 8, 1) for _ in range(3))
            self.h = nn.Conv2d(16, 2, 1)

        def forward(self, x):
            x = self.i(x)
            t, p, g = (part(x).flatten(2) for part in (self.t, self.p, self.g))
            mixed = g @ (t.mT @ p).softmax(-1).mT
            return self.h(x + self.o(mixed.view(len(x), -1, *x.shape[2:])))

    net = NonLocal()
    groups = build_groups(net, IMAGE)
    assert groups["t"].producers == ("t", "p")
    assert groups["g"].producers == ("g",)
    parts = {"i": (), "t": ((0.5, ("t",)),), "g": ((0.5, ("g",)),)}
    assert {name: group.products for name, group in groups.items()} == parts
    macs = MacModel.of(net, groups, IMAGE)
    plan = random_plan(groups, 3)
    cut_channels(net, groups, plan)
    assert macs.remaining(plan.widths()) == count_macs(net, IMAGE)
    assert macs.cost_of(list(groups))(list(plan.widths().values())) == count_macs(net, IMAGE)


class Strength:
    """Keeps a number per channel, as a callback does; a cut makes it narrower only if notified."""

    def __init__(self):
        self.kept, self.passes = torch.zeros(8), 0

    def watch(self, layer, inputs, output):
        self.passes += 1
        self.kept = self.kept + output.mean((0, 2, 3))


class ToldStrength(Strength):
    def on_channels_pruned(self, trainer, pl_module, pruned):
        pass


def convolutions():
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize("bind", [
    lambda s: s.watch,
    lambda s: lambda *args: s.watch(*args),
    lambda s: partial(s.watch),
    lambda s: partial(lambda strength, *args: strength.watch(*args), s),
], ids=["method", "closure", "partial", "argument"])  # fmt: skip
def test_hooks_of_listeners_hear_of_no_trial(bind):
    for strength, refusals in ((Strength(), ["0"]), (ToldStrength(), [])):
        net = convolutions()
        groups = trace_groups(net, IMAGE)
        net[0].register_forward_hook(bind(strength))
        assert list(try_groups(net, IMAGE, groups)[1]) == refusals
        assert len(net[0]._forward_hooks) == 1
    assert strength.passes == 0


def test_a_model_that_is_notified_of_the_cut_may_train_with_what_it_will_adapt():
    class Prototypes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.kept = convolutions(), torch.ones(8)

        def forward(self, x):
            made = self.net[0](x)
            if self.training:
                self.last = made.mean((0, 2, 3)) * self.kept
            return self.net[2](made)

    class Told(Prototypes):
        def on_channels_pruned(self, trainer, pl_module, pruned):
            self.kept = self.kept[pruned.plan.keep["net.0"]]

    for kind, refusals in ((Prototypes, ["net.0"]), (Told, [])):
        net = kind()
        assert list(try_groups(net, IMAGE, trace_groups(net, IMAGE))[1]) == refusals


def test_macs_of_a_depthwise_layer_over_several_groups_are_predicted():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 24, 1)
            self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
            self.c = nn.Conv2d(32, 2, 1)

        def forward(self, x):
            return self.c(self.deep(torch.cat([self.a(x), self.b(x)], 1)))

    net = Joined()
    groups = build_groups(net, IMAGE)
    assert list(groups) == ["a", "b"]
    macs, plan = MacModel.of(net, groups, IMAGE), random_plan(groups, 3)
    time = estimated_time(macs, list(groups), vector=1, memory_cost=1)
    widths = np.array([list(plan.widths().values())], dtype=float)
    estimated = time(widths)[0]
    cut_channels(net, groups, plan)
    assert macs.remaining(plan.widths()) == count_macs(net, IMAGE)
    now = MacModel.of(net, ChannelGroups({}), IMAGE)
    assert estimated == pytest.approx(estimated_time(now, [], 1, 1)(np.zeros((1, 0)))[0])


def test_what_is_left_out_is_said_with_a_count():
    text = what_is_left_out({f"layer{n}": "why" for n in range(5)})
    assert text.startswith("5 groups of channels keep their width")
    assert "layer2: why" in text
    assert "and 2 more" in text
    assert "layer3" not in text


class Sized(nn.Module):
    """Convolutions that note the sides of what they get."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.sides = least, set()
        self.a, self.b = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        assert x.shape[-1] >= self.least
        self.sides.add(x.shape[-1])
        return self.b(self.a(x))


@pytest.mark.parametrize(("least", "side"), [(1, 128), (200, 512)])
def test_large_pictures_are_tried_in_small_where_the_network_takes_them(least, side, monkeypatch):
    net, example = Sized(least), torch.zeros(1, 1, 512, 512)
    traced = trace_groups(net, example)
    seen = []
    original = trial_cut.eval_outputs
    monkeypatch.setattr(
        trial_cut,
        "eval_outputs",
        lambda n, x, *a, **k: (seen.append(x.shape[-1]), original(n, x, *a, **k))[1],
    )
    accepted, refused = try_groups(net, example, traced)
    assert (list(accepted), refused) == (["a"], {})
    assert seen[-1] == side


class Gated(nn.Module):
    """Values by head with a gate for each; the number of heads is written into the code."""

    def __init__(self):
        super().__init__()
        self.value, self.gate = nn.Linear(6, 32), nn.Linear(6, 8)
        self.out, self.unused = nn.Linear(32, 3), nn.Embedding(5, 7)

    def forward(self, x):
        value = self.value(x).view(len(x), 8, -1)
        gate = self.gate(x).view(len(x), 8, 1)
        return self.out((value * gate).flatten(1))


def test_every_layer_of_a_factor_that_is_left_out_has_a_reason():
    groups = build_groups(Gated(), torch.zeros(2, 6))
    assert groups["value"].channels == 4  # the width of heads, whose number is fixed
    assert set(groups.refused) == {"gate", "out", "unused"}
    assert "fails" in groups.refused["gate"]
    assert "does not call it" in groups.refused["unused"]
