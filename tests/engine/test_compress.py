"""A trained network and batches without labels in, a narrower network out."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.engine.compress import compress
from lightning_prune.engine.compression import Compression
from lightning_prune.engine.label_free_steps import label_free_steps
from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.macs import count_macs
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from lightning_prune.surgery.masked_refit import masked_refit
from lightning_prune.surgery.recalibrate import recalibrate_norms
from lightning_prune.surgery.scramble import scramble
from tests.graph.recurrent import Movie
from tests.networks import Concat, Residual, VisionTransformer, conv_bn
from tests.neural.test_module import batch, module
from tests.surgery.test_walked_refit import Tokens


def trained(net: nn.Module, batches: list) -> nn.Module:
    """Weights that hide nothing, and norms that have seen the data."""
    scramble(net)
    net.train()
    recalibrate_norms(net, batches, call)
    return net


def images(number: int = 4, size: int = 8, shape: tuple[int, ...] = (3, 8, 8)) -> list[Tensor]:
    """Images of few sources, so that channels have much in common."""
    random = torch.Generator().manual_seed(3)
    sources = torch.randn(6, *shape, generator=random)
    weights = torch.randn(number * size, 6, generator=random)
    mixed = torch.einsum("ns,s...->n...", weights, sources)
    return list((mixed + 0.1 * torch.randn(mixed.shape, generator=random)).split(size))


class Plain(nn.Sequential):
    """Convolutions with norms and a linear head."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 16), conv_bn(16, 16), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 5),
        )  # fmt: skip


class Gate(nn.Module):
    """A ConvGRU-like cell over frames (B, 2, T, H, W)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width, self.read = width, nn.Conv2d(2, 12, 3, padding=1)
        self.gate = nn.Conv2d(12 + width, width, 3, padding=1)
        self.value = nn.Conv2d(12 + width, width, 3, padding=1)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.gate.out_channels, *x.shape[3:])
        for frame in x.unbind(2):
            both = torch.cat([torch.relu(self.read(frame)), h], 1)
            gate = torch.sigmoid(self.gate(both))
            h = gate * h + (1 - gate) * torch.tanh(self.value(both))
        return self.head(h.mean((2, 3)))


KINDS = {
    "plain": (Plain, images()),
    "residual": (Residual, images()),
    "concat": (Concat, images()),
    "tokens": (Tokens, images()),
    "attention": (lambda: VisionTransformer(5), images(shape=(1, 8, 8))),
    "movie": (Movie, images(shape=(2, 4, 5, 5))),
    "gate": (Gate, images(shape=(2, 4, 5, 5))),
}


def make(kind: str) -> tuple[nn.Module, list[Tensor]]:
    network, batches = KINDS[kind]
    torch.manual_seed(0)
    return trained(network(), batches), batches


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_network_becomes_smaller_and_agrees(kind: str):
    net, batches = make(kind)
    before = count_macs(net.eval(), batches[0][:1])
    net.train()
    target = 0.7 if kind == "gate" else 0.6  # a state that begins with zeros has no groups
    found = compress(net, batches, target, steps=12, round_to=2)
    assert found.module is net
    assert not net.training
    assert found.macs_before == before
    assert found.macs <= target * before
    assert count_macs(net, batches[0][:1]) == found.macs
    assert found.widths
    for name, (wide, narrow) in found.widths.items():
        assert narrow < wide, name
        assert narrow % 2 == 0, name
    assert found.images == 26
    assert 0 <= found.agreement_before_steps <= found.agreement <= 1
    assert found.steps.before <= found.steps.after == found.agreement
    assert net(batches[0]).isfinite().all()
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


@pytest.mark.parametrize("kind", ["plain", "residual", "tokens"])
def test_the_refits_are_worth_much(kind: str):
    """Against the same channels gone without any repair."""
    net, batches = make(kind)
    dense = copy_module(net).eval()
    compression = Compression(net, batches, round_to=2)
    found = compression.cut(0.7)
    masked = copy_module(dense)
    from lightning_prune.surgery.mask import ChannelMask

    ChannelMask(masked, compression.groups, found.plan).apply()
    with torch.no_grad():
        x = torch.cat(batches)
        wanted, own, bare = dense(x), net.eval()(x), masked(x)
    assert (own - wanted).square().sum() < 0.5 * (bare - wanted).square().sum()


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Plain()

    def forward(self, image: Tensor, scale: Tensor | None = None) -> Tensor:
        out = self.net(image)
        return out if scale is None else out * scale[:, None]


class Lit(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_all_kinds_of_batches_give_the_same_network():
    """Tensors, pairs, dicts and a loader."""
    batches = images()
    x = torch.cat(batches)
    labels = torch.zeros(len(x), dtype=torch.int64)
    loader = DataLoader(TensorDataset(x, labels), batch_size=8)
    states = []
    for given, network in (
        (batches, Plain),
        ([(each, torch.zeros(8)) for each in batches], Plain),
        ((each for each in batches), Plain),
        (loader, Plain),
        (loader, Lit),
        ([{"image": each, "label": 3} for each in batches], Named),
    ):
        torch.manual_seed(0)
        net = trained(network(), [])
        plain = net if isinstance(net, Plain) else net.net
        trained(plain, batches)
        compress(net, given, 0.5, steps=3)
        states.append(list(plain.parameters()))
    for state in states[1:]:
        for one, other in zip(states[0], state, strict=True):
            assert torch.equal(one, other)


def test_several_arguments_are_given():
    torch.manual_seed(0)
    net = trained(Named(), [])
    given = [{"image": x, "scale": torch.linspace(1, 2, 8)} for x in images()]
    found = compress(net, given, 0.5, steps=2)
    assert found.macs_fraction <= 0.5
    assert net(**given[0]).shape == (8, 5)


def test_the_same_seed_gives_the_same_weights_and_random_states_stay():
    states = []
    for _ in range(2):
        net, batches = make("plain")
        torch.manual_seed(11)
        before = torch.get_rng_state()
        compress(net, batches, 0.5, steps=8, seed=5)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(net.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"mac_target": 0.0}, "mac_target"),
        ({"mac_target": 1.0}, "mac_target"),
        ({"mac_target": float("nan")}, "mac_target"),
        ({"mac_target": "half"}, "mac_target"),
        ({"mac_target": 0.001}, "cannot be reached: the narrowest widths leave 0"),
        ({"steps": -1}, "steps"),
        ({"round_to": 0}, "round_to"),
        ({"least": 1.0}, "least"),
        ({"layers": ["nothing*"]}, r"layers: no layer 'nothing\*' that makes channels"),
        ({"layers": ["6"]}, "layers: layer '6' cannot be pruned: its channels reach the output"),
        ({"round_to": 64}, "no channel can go"),
        ({"batches": []}, "there is none; pass at least one"),
        ({"batches": [torch.zeros(0, 3, 8, 8)]}, "a batch has no image"),
        ({"batches": [{}]}, "a batch has no image"),
        ({"batches": torch.zeros(4, 3, 8, 8)}, "pass a list of batches"),
        ({"batches": {"image": torch.zeros(4, 3, 8, 8)}}, "pass a list"),
        ({"batches": None}, "batches=null: pass a list"),
        ({"batches": [torch.zeros(2, 3, 8, 8), torch.zeros(0, 3, 8, 8)]}, "a batch has no image"),
    ],
    ids=str,
)
def test_wrong_arguments_are_one_clear_error_and_change_nothing(words, message):
    net, batches = make("plain")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = {"batches": batches, "steps": 0, **words}
    with pytest.raises(ValueError, match=message):
        compress(net, **given)
    state = net.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert net.training


def test_a_network_without_channels_to_remove_is_refused():
    with pytest.raises(ValueError, match="no channel can go"):
        compress(nn.Sequential(nn.Linear(3, 2)), [torch.rand(4, 3)], 0.5)


def test_fewer_than_five_images_hold_nothing_back():
    net, batches = make("plain")
    found = compress(net, [batches[0][:4]], 0.5, steps=5)
    assert found.agreement is None
    assert found.agreement_before_steps is None
    assert found.steps.steps == 0
    assert found.images == 4
    assert found.macs_fraction <= 0.5
    assert net(batches[1]).shape == (8, 5)


def test_single_images_and_ragged_batches():
    net, batches = make("plain")
    x = torch.cat(batches)
    found = compress(net, [*x[:6].split(1), x[6:19], x[19:21]], 0.5, steps=2)
    assert found.images == 17
    assert found.agreement is not None


class Pushed(Plain):
    """Its own loss leads away from the dense network."""

    def distillation_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        return (outputs - 100).square().mean()


def test_steps_that_do_harm_are_taken_back():
    torch.manual_seed(0)
    batches = images()
    net = trained(Pushed(), batches)
    without = copy_module(net)
    found = compress(net, batches, 0.5, steps=12)
    bare = compress(without, batches, 0.5, steps=0)
    assert found.steps.kept == 0
    assert found.steps.steps == 12
    assert found.agreement == found.agreement_before_steps == bare.agreement
    state = without.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_steps_that_help_are_kept_and_frozen_weights_stay_frozen():
    net, _ = make("plain")
    net[0].requires_grad_(False)
    found = compress(net, images(12), 0.4, steps=60)
    assert found.steps.kept > 0
    assert found.agreement > found.agreement_before_steps
    assert not net[0][0].weight.requires_grad
    assert net[6].weight.requires_grad


class Own(Plain):
    """Says of itself where it looks, what is lost and who agrees."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def saliency(self, outputs: Tensor) -> Tensor:
        self.asked.append("saliency")
        return torch.ones(len(outputs), 4, 4)

    def agreement(self, outputs: list[Tensor], dense_outputs: list[Tensor]) -> float:
        self.asked.append("agreement")
        assert len(outputs) == len(dense_outputs)
        assert outputs[0].shape == dense_outputs[0].shape
        return 0.25

    def distillation_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        self.asked.append("loss")
        return (outputs - dense_outputs).square().mean()


def test_what_a_module_says_of_itself_is_asked():
    torch.manual_seed(0)
    net = trained(Own(), images())
    found = compress(net, images(), 0.5, steps=2)
    assert set(net.asked) == {"saliency", "agreement", "loss"}
    assert net.asked.count("loss") == 2
    assert found.agreement == 0.25


def test_a_copy_is_cut_to_several_targets_and_the_smallest_that_agrees_is_found():
    net, batches = make("plain")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    compression = Compression(net, batches, round_to=2)
    sizes = []
    for target in (0.7, 0.4):
        found = compression.cut(target, module=copy_module(net))
        assert found.module is not net
        assert found.macs_fraction <= target
        sizes.append(found.macs)
    assert sizes[0] > sizes[1]
    wanted = 0.9
    smallest = compression.smallest(wanted)
    assert compression.least_macs < smallest < 1
    found = compression.cut(smallest, module=copy_module(net))
    assert found.agreement > wanted - 0.05
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="pass at least 5"):
        Compression(net, [batches[0][:4]]).smallest(0.9)


def test_layers_that_may_not_go_stay():
    net, batches = make("plain")
    with pytest.raises(ValueError, match="cannot be reached"):
        compress(net, batches, 0.1, steps=0, layers=["1*"])
    found = compress(net, batches, 0.8, steps=0, layers=["1*"])
    assert set(found.widths) == {"1.0"}


def test_inputs_that_are_nan_leave_layers_alone_and_no_weight_becomes_nan():
    net, batches = make("plain")
    batches = [x.clone() for x in batches]
    batches[0][0, 0, 0, 0] = float("nan")
    found = compress(net, batches, 0.5, steps=5)
    assert "1.0" in found.left
    assert all(value.isfinite().all() for value in net.state_dict().values())
    assert found.macs_fraction <= 0.5


class Forks(nn.Module):
    """Images that are bright come through one layer more."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.net = nn.Conv2d(3, 3, 1), Plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.dim(x) if x.mean() > 0 else x)


def test_batches_that_take_different_paths_are_refitted_pass_by_pass():
    torch.manual_seed(0)
    batches = images()
    net = trained(Forks(), batches)
    paths = [bool(x.mean() > 0) for x in batches]
    assert True in paths
    assert False in paths
    dense = copy_module(net).eval()
    compression = Compression(net, batches, round_to=2, powers=[1.0])
    with pytest.warns(UserWarning, match="refitted in separate passes"):
        found = compression.cut(0.6, steps=4)
    assert "come to different layers" in found.left[""]
    assert not found.errors
    assert found.macs_fraction <= 0.6
    with torch.no_grad():
        own, wanted = (torch.cat([each.eval()(x) for x in batches]) for each in (net, dense))
    assert (own - wanted).square().sum() < (wanted - wanted.mean(0)).square().sum()


def test_the_passes_start_from_the_dense_weights_not_from_half_a_walk():
    torch.manual_seed(0)
    batches = images()
    net = trained(Forks(), batches)
    compression = Compression(net, batches, round_to=2)
    plan = compression.plan(0.6, 1.0)
    first, second, dense = (copy_module(net) for _ in range(3))
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)
    with pytest.warns(UserWarning):
        masked_refit(first, dense, compression.groups, plan, batches, call)
    with pytest.warns(UserWarning):
        masked_refit(second, dense, compression.groups, plan, batches, call)
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    assert first.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked_refit(first, dense, compression.groups, plan, batches[:1], call)


def test_the_weights_load_into_a_fresh_dense_network_and_can_be_compressed_again():
    net, batches = make("plain")
    first = compress(net, batches, 0.6, steps=0, round_to=2)
    fresh = Plain()
    load_pruned_state_dict(fresh, net.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(batches[0]), net(batches[0]))
    second = compress(net, batches, 0.6, steps=0, round_to=2)
    assert second.macs_before == first.macs
    assert second.macs_fraction <= 0.6
    load_pruned_state_dict(fresh := Plain(), net.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(batches[0]), net(batches[0]))


def test_a_model_of_neural_responses_needs_stimuli_only():
    net = module()
    random = torch.Generator().manual_seed(1)
    stimuli = [
        {**batch()[0], "stimulus": torch.randn(6, 1, 16, 15, 15, generator=random)}
        for _ in range(3)
    ]
    found = compress(net, stimuli, 0.7, steps=3, round_to=2, least=0.2)
    assert found.macs_fraction <= 0.7
    assert found.agreement > 0.5
    assert {"network.frontend.conv"} <= set(found.widths)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_statistics_of_norms_that_are_not_those_of_the_images(scale: float):
    """Frozen norms, other images than in training, another size: the dense network has its own."""
    net, batches = make("residual")
    found = compress(net, [scale * x for x in batches], 0.7, steps=0, round_to=2)
    assert found.agreement > 0.5


def test_long_harm_ends_after_half_of_the_steps():
    torch.manual_seed(0)
    batches = images()
    net = trained(Pushed(), batches)
    found = compress(net, batches, 0.5, steps=60)
    assert found.steps.kept == 0
    assert found.steps.steps == 30


def test_a_refused_cut_and_an_interruption_leave_the_module_as_it_was(monkeypatch):
    def refuses(*_: object) -> None:
        raise RuntimeError("the cut model differs")

    def interrupts(items: Iterable[Any], title: str) -> Iterator[Any]:
        for number, item in enumerate(items):
            if title == "Refitting layers" and number == 2:
                raise KeyboardInterrupt
            yield item

    net, batches = make("plain")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        compress(net, batches, 0.5, steps=0, progress=interrupts)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    monkeypatch.setattr("lightning_prune.engine.compression.verified_cut", refuses)
    with pytest.raises(RuntimeError, match="differs"):
        compress(net, batches, 0.5, steps=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_interrupted_steps_leave_the_best_weights():
    def interrupts(items: Iterable[int]) -> Iterator[int]:
        yield from list(items)[:9]
        raise KeyboardInterrupt

    net, batches = make("plain")
    dense = copy_module(net)
    scores = iter([0.0, 1.0, 0.5])  # before, after 5 steps; 10 are never made
    seen: list[torch.Tensor] = []

    def score() -> float:
        seen.append(net[6].weight.detach().clone())
        return next(scores)

    with torch.no_grad():
        net[0][0].weight.mul_(0.5)
    with pytest.raises(KeyboardInterrupt):
        label_free_steps(net, dense, batches, score, steps=30, progress=interrupts)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(net[6].weight, seen[1])
