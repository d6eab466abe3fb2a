"""Every switch of the model on and off: masked is cut, and a cut model loads and trains on."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.neural.network.conv_gru import ConvGRU
from lightning_prune.neural.network.network import NeuralResponseNetwork
from lightning_prune.neural.network.options import ConvNetOptions, ModulatorOptions
from lightning_prune.neural.network.rms_norm import RMSNorm
from lightning_prune.neural.network.weight_norm_conv import WeightNormConv3d
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.compare import eval_outputs, noise_like
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.testing import check_prunable

HIDDEN = "modulator.gru.cell.conv_x"


def stirred(module: nn.Module) -> nn.Module:
    """Move every trained parameter from its start, where much is zero or the same."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def network(convnet: dict | None = None, modulator: dict | None = None) -> NeuralResponseNetwork:
    torch.manual_seed(0)
    sizes = {"behavior_dim": 6, "feature_dim": 24, "hidden_dim": 16, "beh_emb_dim": 8}
    net = NeuralResponseNetwork(
        [5, 3],
        convnet=ConvNetOptions.from_dict({"channels": [8, 16, 24], **(convnet or {})}),
        modulator=ModulatorOptions.from_dict({**sizes, **(modulator or {})}),
    )
    return stirred(net)


def example(frames: int = 25, batch: int = 1) -> dict[str, Tensor]:
    return {"stimulus": torch.zeros(batch, 1, frames, 15, 15), "behavior": torch.zeros(batch, 6)}


CONVNET = [
    {},
    {"norm_affine": False, "zero_init_residual": False},
    {"norm_type": "batch"},
    {"norm_type": "none", "zero_init_residual": False},
    {"conv_type": "standard"},
    {"conv_type": "standard", "use_weight_norm": True},
    {"init": "relu", "zero_init_residual": False},
    {"channels": [4, 24, 24]},
    {"activation": "relu", "sum_activation": "silu"},
]
MODULATOR = [
    {"use_layer_norm": False},
    {"learnable_h0": False},
    {"use_depthwise": True},
    {"use_grouped": True, "num_groups": 4},
    {"use_grouped": True, "num_groups": 4, "use_layer_norm": False},
    {"use_residual": True, "hidden_dim": 32},
    {"use_residual": True, "hidden_dim": 32, "learnable_h0": False, "use_layer_norm": False},
    {"grad_clip_val": 0.1},
    {"candidate": "standard"},
    {"candidate": "missing"},
    {"init": "default", "kernel_size": 1},
    {"hidden_dim": 64},
]


@pytest.mark.parametrize("convnet", CONVNET, ids=str)
def test_masked_is_cut_whatever_the_resnet(convnet: dict):
    found = check_prunable(network(convnet), example())
    assert found.groups == 9
    assert found.mixed_by == ()
    assert found.difference < 1e-5
    assert set(found.refused) == {"readouts.0.features", "readouts.1.features"}


@pytest.mark.parametrize("modulator", MODULATOR, ids=str)
def test_masked_is_cut_whatever_the_recurrence(modulator: dict):
    found = check_prunable(network(modulator=modulator), example())
    assert found.mixed_by == ()
    assert found.difference < 1e-5
    # Features and behaviour share the groups of a grouped convolution: they are one group.
    assert found.groups == (8 if modulator.get("use_grouped", False) else 9)
    assert set(found.refused) == {"readouts.0.features", "readouts.1.features"}


@pytest.mark.parametrize("frames", [16, 39])  # one and three steps of the recurrence
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("learnable_h0", [True, False])
def test_masked_is_cut_for_short_and_long_windows(frames: int, batch: int, learnable_h0: bool):
    net = network(modulator={"learnable_h0": learnable_h0})
    steps: list[int] = []
    net.modulator.gru.register_forward_hook(lambda _m, x, _out: steps.append(x[0].shape[2]))
    assert check_prunable(net, example(frames, batch)).difference < 1e-5
    net(**example(frames, batch))
    assert set(steps) == {1 if frames == 16 else 3}


@pytest.mark.parametrize(("hidden", "width"), [(16, 5), (64, 40), (96, 64), (32, 1)])
def test_the_hidden_size_becomes_what_was_asked_for(hidden: int, width: int):
    net = network(modulator={"hidden_dim": hidden})
    groups = trace_groups(net, example())
    group = groups[HIDDEN]
    assert (group.channels, group.step, group.bundle) == (hidden, 1, 1)
    keep = torch.randperm(hidden)[:width].sort()[0]
    cut_channels(net, groups, PruningPlan({HIDDEN: keep}, {HIDDEN: hidden}))
    gru = net.modulator.gru
    assert gru.cell.conv_h.weight.shape[:2] == (3 * width, width)
    assert gru.cell.conv_x.weight.shape[:2] == (3 * width, 32)
    assert gru.h0.shape == (1, width, 1, 1)
    assert net.modulator.output_proj.weight.shape[:2] == (hidden, width)
    norm = gru.cell.layer_norm
    assert (norm.num_channels, norm.num_groups) == (3 * width, min(32, hidden))
    net(**example())


def test_bundles_of_a_grouped_recurrence_are_whole_hidden_channels():
    net = network(modulator={"use_grouped": True, "num_groups": 4})
    group = trace_groups(net, example())[HIDDEN]
    assert (group.channels, group.bundle) == (4, 4)
    before = net.modulator.gru.cell.conv_h.weight.detach().clone()
    plan = PruningPlan({HIDDEN: torch.tensor([0, 3])}, {HIDDEN: 4})
    cut_channels(net, trace_groups(net, example()), plan)
    hidden = torch.tensor([0, 3, 4, 7, 8, 11, 12, 15])
    rows = torch.cat([hidden, hidden + 16, hidden + 32])
    assert torch.equal(net.modulator.gru.cell.conv_h.weight, before[rows][:, [0, 3]])


@pytest.mark.parametrize("steps", [1, 12])
@pytest.mark.parametrize("batch", [1, 8])
def test_masked_is_cut_however_often_the_recurrence_runs(steps: int, batch: int):
    torch.manual_seed(0)
    model = nn.Sequential(stirred(ConvGRU(5, 12)), nn.Conv2d(12, 2, 1))
    found = check_prunable(model, torch.zeros(batch, 5, steps, 6, 6), ratio=0.6)
    assert found.groups == 1
    assert found.difference < 1e-5


def test_a_masked_hidden_channel_stays_zero_through_time():
    for candidate in ("fixed", "standard", "missing"):
        torch.manual_seed(0)
        gru = stirred(ConvGRU(3, 6, candidate=candidate))
        model = nn.Sequential(gru, nn.Conv2d(6, 2, 1))
        x = torch.randn(2, 3, 7, 4, 4)
        groups = trace_groups(model, x)
        ChannelMask(model, groups, PruningPlan({"0.cell.conv_x": torch.tensor([0, 2, 5])},
                    {"0.cell.conv_x": 6})).apply()  # fmt: skip
        for frames in range(1, 8):
            state = gru(x[:, :, :frames])
            assert not state[:, [1, 3, 4]].any()
            assert state[:, [0, 2, 5]].all()


def test_an_rms_norm_divides_by_what_it_divided_by_before():
    for affine in (True, False):
        torch.manual_seed(0)
        norm = stirred(RMSNorm(6, eps=0.1, affine=affine))
        model = nn.Sequential(nn.Conv2d(2, 6, 1), norm, nn.ReLU(), nn.Conv2d(6, 2, 1))
        x = noise_like(torch.zeros(2, 2, 3, 3))
        plan = PruningPlan({"0": torch.tensor([1, 4])}, {"0": 6})
        groups = trace_groups(model, x)
        ChannelMask(model, groups, plan).apply()
        gamma = norm.gamma.detach()[[1, 4]]
        (masked,) = eval_outputs(model, x)
        cut_channels(model, groups, plan)
        torch.testing.assert_close(norm.gamma.detach(), gamma * 3**0.5)
        assert norm.eps == pytest.approx(0.3)
        assert norm.gamma.requires_grad == affine
        torch.testing.assert_close(eval_outputs(model, x)[0], masked, rtol=1e-5, atol=1e-6)


def test_filters_with_weight_norm_keep_their_lengths():
    torch.manual_seed(0)
    first, second = WeightNormConv3d(2, 6, 1), WeightNormConv3d(6, 3, 1)
    model = stirred(nn.Sequential(first, nn.ReLU(), second))
    x = noise_like(torch.zeros(1, 2, 2, 3, 3))
    groups = trace_groups(model, x)
    assert [(m.layer, m.role) for m in groups["0"].members] == [
        ("0", "producer"),
        ("2", "consumer"),
    ]
    plan = PruningPlan({"0": torch.tensor([0, 3, 4])}, {"0": 6})
    mask = ChannelMask(model, groups, plan)
    mask.apply()
    assert not first.filters()[[1, 2, 5]].any()
    lengths = second.filters().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, second.gain)
    first.zero_grad()
    model(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    cut_channels(model, groups, plan)
    torch.testing.assert_close(second.filters().flatten(1).norm(dim=1), second.gain)


def test_a_cut_model_loads_and_trains_on():
    net = track_architecture(network({"norm_affine": False, "zero_init_residual": False}))
    dense = copy.deepcopy(net)
    groups = trace_groups(net, example())
    keep = {name: torch.arange(group.channels // 2) for name, group in groups.items()}
    channels = {name: group.channels for name, group in groups.items()}
    plan = PruningPlan(keep, channels)
    ChannelMask(net, groups, plan).apply()
    cut_channels(net, groups, plan)
    state = net.state_dict()
    dense.load_state_dict(state)
    noise = noise_like(example())
    for ours, theirs in zip(eval_outputs(net, noise), eval_outputs(dense, noise), strict=True):
        assert torch.equal(ours, theirs)
    dense.train()
    sum(rate.exp().sum() for rate in dense(**noise)).backward()
    assert all(p.grad is not None for p in dense.parameters() if p.requires_grad)
