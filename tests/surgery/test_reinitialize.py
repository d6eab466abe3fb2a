import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_prune.functional.usage import used_channels
from lightning_prune.graph.outputs import layer_outputs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.observe.usage import ChannelUsage
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.reinitialize import (
    channel_tensors,
    copy_channels,
    cut_originals,
    original_values,
    reset_channels,
    why_not_resettable,
)
from tests.networks import EXAMPLE, NETWORKS, make, random_plan

# What is reset, and the dimension of the weight that holds its output channels.
LAYERS = {
    "conv": (lambda: nn.Conv2d(6, 9, 3), 0),
    "conv1d": (lambda: nn.Conv1d(6, 9, 3), 0),
    "conv3d": (lambda: nn.Conv3d(6, 9, 2, bias=False), 0),
    "grouped": (lambda: nn.Conv2d(6, 9, 3, groups=3), 0),
    "depthwise": (lambda: nn.Conv2d(9, 9, 3, groups=9, bias=False), 0),
    "transposed": (lambda: nn.ConvTranspose2d(6, 9, 3), 1),
    "depthwise transposed": (lambda: nn.ConvTranspose2d(9, 9, 3, groups=9), 0),
    "linear": (lambda: nn.Linear(6, 9), 0),
}
CHANNELS = torch.tensor([1, 4, 8])
REST = torch.tensor([0, 2, 3, 5, 6, 7])


def built(name, norm=True):
    torch.manual_seed(0)
    layer, dim = LAYERS[name][0](), LAYERS[name][1]
    if not norm:
        return layer, None, dim
    beside = nn.BatchNorm2d(9)
    for values in (beside.weight, beside.bias, beside.running_mean, beside.running_var):
        nn.init.uniform_(values, 2, 3)
    return layer, beside, dim


def tensors_of(*modules):
    return {
        (place, name): value
        for place, module in enumerate(modules)
        for name, value in (module.state_dict() if module is not None else {}).items()
    }


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("reset_type", ["random", "original", "zero"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_rows_change_and_only_they(name, reset_type, norm):
    layer, beside, dim = built(name, norm)
    originals = {n: v + 10 for n, v in original_values(layer, beside).items()}
    before = copy.deepcopy(tensors_of(layer, beside))
    parameters = list(layer.parameters())
    reset_channels(layer, CHANNELS, reset_type, norm=beside, originals=originals)
    assert all(a is b for a, b in zip(parameters, layer.parameters(), strict=True))
    for (place, key), value in tensors_of(layer, beside).items():
        if value.ndim == 0:
            continue
        at = dim if (place, key) == (0, "weight") else 0
        old = before[place, key]
        assert torch.equal(value.index_select(at, REST), old.index_select(at, REST))
        rows = value.index_select(at, CHANNELS)
        if reset_type == "original":
            assert torch.equal(rows, old.index_select(at, CHANNELS) + 10)
        elif (place, key) == (0, "weight"):
            assert not torch.isclose(rows, old.index_select(at, CHANNELS)).any()
            assert rows.abs().max() == 0 if reset_type == "zero" else rows.abs().min() > 0
        else:
            fresh = 1.0 if place == 1 and key in ("weight", "running_var") else 0.0
            assert rows.unique().tolist() == [fresh]


@pytest.mark.parametrize("name", LAYERS)
def test_random_rows_are_distributed_as_xaviers(name):
    """Oracle: bound and variance of PyTorch's own initialization of the whole weight."""
    layer, _, dim = built(name, norm=False)
    whole = torch.empty_like(layer.weight)
    generator = torch.Generator().manual_seed(1)
    ours, theirs = [], []
    for _ in range(400):
        reset_channels(layer, CHANNELS, generator=generator)
        ours.append(layer.weight.detach().index_select(dim, CHANNELS).flatten())
        theirs.append(nn.init.xavier_uniform_(whole, generator=generator).flatten().clone())
    ours, theirs = torch.cat(ours), torch.cat(theirs)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert 0.99 * bound < ours.max() <= bound
    assert -bound <= ours.min() < -0.99 * bound
    assert ours.abs().max() == pytest.approx(theirs.abs().max().item(), rel=0.01)
    assert ours.var().item() == pytest.approx(bound**2 / 3, rel=0.05)
    assert ours.var().item() == pytest.approx(theirs.var().item(), rel=0.05)
    assert abs(ours.mean().item()) < 0.05 * bound


def test_a_generator_gives_the_same_twice_and_no_other_is_drawn_from():
    first, second = built("conv")[0], built("conv")[0]
    state = torch.get_rng_state()
    for layer in (first, second):
        reset_channels(layer, CHANNELS, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    reset_channels(second, CHANNELS)  # PyTorch's own, seeded alike
    assert torch.equal(first.weight, second.weight)


def test_precision_and_memory_format_stay():
    layer = nn.Conv2d(6, 9, 3).to(torch.bfloat16, memory_format=torch.channels_last)
    reset_channels(layer, CHANNELS)
    assert layer.weight.dtype == torch.bfloat16
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    originals = {n: v.float() for n, v in original_values(layer).items()}
    reset_channels(layer, CHANNELS, "original", originals=originals)
    assert torch.equal(layer.weight.float(), originals["weight"])


def test_no_channel_changes_nothing():
    layer, norm, _ = built("conv")
    before = copy.deepcopy(tensors_of(layer, norm))
    for reset_type in ("random", "zero"):
        reset_channels(layer, torch.empty(0, dtype=torch.int64), reset_type, norm=norm)
    assert all(torch.equal(v, before[k]) for k, v in tensors_of(layer, norm).items())


def test_norms_without_values_by_channel():
    layer = nn.Conv2d(3, 4, 1)
    for norm in (nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.LayerNorm([4, 2])):
        before = copy.deepcopy(norm.state_dict())
        assert set(channel_tensors(layer, norm)) == {"weight", "bias"}
        reset_channels(layer, torch.tensor([2]), norm=norm)
        assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())
    group = nn.GroupNorm(2, 4)
    nn.init.constant_(group.bias, 5.0)
    reset_channels(layer, torch.tensor([2]), norm=group)
    assert group.bias.tolist() == [5.0, 5.0, 0.0, 5.0]
    rms = nn.RMSNorm(4)
    nn.init.constant_(rms.weight, 5.0)
    reset_channels(nn.Linear(3, 4), torch.tensor([2]), norm=rms)
    assert rms.weight.tolist() == [5.0, 5.0, 1.0, 5.0]


def test_refusals():
    linear = nn.Linear(2, 3)
    with pytest.raises(
        ValueError, match="reset_type='xavier': pass 'random', 'original' or 'zero'"
    ):
        reset_channels(linear, CHANNELS, "xavier")
    with pytest.raises(ValueError, match=r"keep original_values\(\) at first"):
        reset_channels(linear, torch.tensor([0]), "original")
    wide = {"weight": torch.zeros(4, 2)}
    before = linear.weight.clone()
    with pytest.raises(ValueError, match=r"\(4, 2\), the layer's of shape \(3, 2\).*cut_originals"):
        reset_channels(linear, torch.tensor([0]), "original", originals=wide)
    assert torch.equal(linear.weight, before)


def test_layers_that_cannot_be_reset():
    assert why_not_resettable(nn.Conv2d(4, 4, 1, groups=2)) is None
    assert why_not_resettable(nn.ConvTranspose2d(4, 4, 1, groups=4)) is None
    assert "has no row for each" in why_not_resettable(nn.ConvTranspose2d(4, 4, 1, groups=2))
    assert "BatchNorm2d makes no channels" in why_not_resettable(nn.BatchNorm2d(4))
    assert "parametrized" in why_not_resettable(parametrizations.weight_norm(nn.Linear(2, 2)))
    frozen = nn.Linear(2, 2)
    frozen.weight.requires_grad_(False)
    assert "frozen" in why_not_resettable(frozen)
    with pytest.raises(ValueError, match="cannot be reset: its weight is frozen"):
        reset_channels(frozen, torch.tensor([0]))


# --- originals ----------------------------------------------------------------------------------


def test_originals_are_copies_of_everything_by_channel():
    layer, norm, _ = built("transposed")
    originals = original_values(layer, norm)
    beside = {"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}
    assert originals.keys() == {"weight", "bias"} | beside
    before = copy.deepcopy(originals)
    with torch.no_grad():
        layer.weight.zero_()
        norm.running_mean.zero_()
    assert all(torch.equal(value, before[name]) for name, value in originals.items())
    reset_channels(layer, torch.arange(9), "original", norm=norm, originals=originals)
    again = original_values(layer, norm)
    assert all(torch.equal(value, before[name]) for name, value in again.items())


@pytest.mark.parametrize("network", NETWORKS)
def test_originals_of_a_cut_equal_a_cut_of_the_originals(network):
    """Oracle: the originals of the cut model, whose weights still are the original ones."""
    net = make(network)
    usage = ChannelUsage(net, layer_outputs(net, EXAMPLE))
    originals = {n: original_values(*usage.layer_and_norm(net, n)) for n in usage.outputs}
    groups = trace_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    narrower = 0
    for name, values in originals.items():
        layer, norm = usage.layer_and_norm(net, name)
        found = cut_originals(values, layer, pruned.parameters.get(f"{name}.weight"))
        expected = original_values(layer, norm)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name
        narrower += found["weight"].shape != values["weight"].shape
        reset_channels(layer, torch.tensor([0]), "original", norm=norm, originals=found)
        again = original_values(layer, norm)
        assert all(torch.equal(again[key], value) for key, value in expected.items()), name
    assert narrower >= 4


def test_copies_follow():
    source, target = built("transposed")[:2], (nn.ConvTranspose2d(6, 9, 3), nn.BatchNorm2d(9))
    before = copy.deepcopy(tensors_of(*target))
    copy_channels(CHANNELS, source, target)
    theirs = tensors_of(*source)
    for key, value in tensors_of(*target).items():
        if value.ndim == 0:
            continue
        at = 1 if key == (0, "weight") else 0
        assert torch.equal(value.index_select(at, CHANNELS), theirs[key].index_select(at, CHANNELS))
        assert torch.equal(value.index_select(at, REST), before[key].index_select(at, REST))


# --- the optimizer's state ----------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), {"momentum_buffer"}),
    "adamw": (
        lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
        {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    ),
    "rmsprop": (
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
        {"square_avg", "momentum_buffer", "grad_avg"},
    ),
}


def trained(optimizer_of, name="conv"):
    torch.manual_seed(0)
    layer, norm, dim = built(name)
    net = nn.Sequential(layer, norm)
    optimizer = optimizer_of(net.parameters())
    inputs = torch.randn(4, 9 if "depthwise" in name else 6, 7, 7)
    for _ in range(2):
        optimizer.zero_grad()
        (net(inputs) - 1).square().mean().backward()
        optimizer.step()
    return layer, norm, dim, optimizer


@pytest.mark.parametrize("name", ["conv", "transposed", "depthwise"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_of_exactly_these_rows_is_cleared(kind, name):
    build, keys = OPTIMIZERS[kind]
    layer, norm, dim, optimizer = trained(build, name)
    # A bias before a norm has no gradient but rounding.
    for state in optimizer.state.values():
        for key in keys:
            state[key].add_(1.0)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    reset_channels(layer, CHANNELS, norm=norm, optimizers=iter([optimizer]))
    after = optimizer.state_dict()["state"]
    assert len(after) == len(before) == len(list(layer.parameters())) + 2
    for number, parameter in enumerate([*layer.parameters(), *norm.parameters()]):
        at = dim if parameter is layer.weight else 0
        assert keys <= after[number].keys()
        for key, value in after[number].items():
            old = before[number][key]
            if key not in keys:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(old))
                continue
            assert not value.index_select(at, CHANNELS).any()
            assert torch.equal(value.index_select(at, REST), old.index_select(at, REST))
            assert value.index_select(at, REST).abs().min() > 0


def test_factored_state_starts_anew_with_a_warning():
    layer, norm, _, optimizer = trained(torch.optim.Adafactor)
    bias = optimizer.state[layer.bias]["variance"].clone()
    with pytest.warns(UserWarning, match="Adafactor keeps row_var, col_var in a form without rows"):
        reset_channels(layer, CHANNELS, norm=norm, optimizers=[optimizer])
    assert layer.weight not in optimizer.state
    found = optimizer.state[layer.bias]["variance"]
    assert not found[CHANNELS].any()
    assert torch.equal(found[REST], bias[REST])
    (layer(torch.randn(2, 6, 7, 7)) - 1).square().mean().backward()
    optimizer.step()
    assert optimizer.state[layer.weight]["step"] == 1


def test_without_channels_the_optimizer_forgets_nothing():
    layer, norm, _, optimizer = trained(torch.optim.Adafactor)
    reset_channels(layer, CHANNELS[:0], norm=norm, optimizers=[optimizer])
    assert optimizer.state[layer.weight]["step"] == 2


# --- the test: killed, found, reset, alive again ----------------------------------------

DEAD = [1, 4]


class Patient(nn.Module):
    """A ReLU layer whose channels are to die and to live."""

    def __init__(self, norm):
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, bias=not norm)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.head = nn.Linear(6, 1)

    def features(self, x):
        return F.relu(self.norm(self.conv(x)))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    @property
    def level(self):
        """What moves all of a channel up or down."""
        return self.norm.bias if isinstance(self.norm, nn.BatchNorm2d) else self.conv.bias


def step(net, optimizer, generator):
    x = torch.randn(16, 2, 6, 6, generator=generator)
    optimizer.zero_grad()
    F.mse_loss(net(x), 3 * x.abs().mean((1, 2, 3))[:, None]).backward()
    optimizer.step()


def used(net):
    x = torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return torch.nonzero(used_channels(net.features(x))).flatten().tolist()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("reset_type", ["random", "original"])
def test_killed_channels_are_found_reset_and_live(norm, reset_type):
    """And die again at once where the optimizer is left with what it knows of them."""
    torch.manual_seed(1)
    net, generator = Patient(norm), torch.Generator().manual_seed(2)
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    originals = original_values(net.conv, net.norm if norm else None)
    for _ in range(5):
        step(net, optimizer, generator)
    assert used(net) == [0, 1, 2, 3, 4, 5]
    # What a step of far too large a gradient does: the channel is dead, and its momentum continues.
    with torch.no_grad():
        net.level[DEAD] = -100.0
        optimizer.state[net.level]["momentum_buffer"][DEAD] = 100.0

    usage = ChannelUsage(net, layer_outputs(net, torch.zeros(2, 2, 6, 6)))
    with usage:
        for _ in range(5):
            step(net, optimizer, generator)
    stats = usage.stats()["conv"]
    assert stats["used_channel_indices"] == [0, 2, 3, 5]
    assert stats["forwards"] == 5
    assert used(net) == [0, 2, 3, 5]

    counts = usage.read()[0]["conv"]
    layer, beside = usage.layer_and_norm(net, "conv")
    momentum = optimizer.state[net.level]["momentum_buffer"].clone()
    assert momentum[DEAD].min() > 50
    reset_channels(
        layer, torch.nonzero(counts == 0).flatten(), reset_type, norm=beside, originals=originals,
        optimizers=[optimizer],
    )  # fmt: skip
    assert used(net) == [0, 1, 2, 3, 4, 5]

    other = copy.deepcopy(net)
    remembering = torch.optim.SGD(other.parameters(), 0.02, momentum=0.9)
    remembering.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    remembering.state[other.level]["momentum_buffer"].copy_(momentum)  # as if it was not cleared
    before = net.conv.weight.detach().clone()
    state = generator.get_state()
    for _ in range(10):
        step(net, optimizer, generator)
    generator.set_state(state)
    for _ in range(10):
        step(other, remembering, generator)
    assert used(net) == [0, 1, 2, 3, 4, 5]
    assert (net.conv.weight - before)[DEAD].flatten(1).abs().max(1).values.min() > 1e-4  # learns
    assert used(other) == [0, 2, 3, 5]
