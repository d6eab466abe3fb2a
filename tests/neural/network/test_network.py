import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.neural.network.network import NeuralResponseNetwork
from lightning_prune.neural.network.options import (
    ConvNetOptions,
    FrontendOptions,
    ModulatorOptions,
)
from tests.neural.network.golden import ours, shaped
from tests.neural.network.test_resnet import reference_options

SMALL = ModulatorOptions(behavior_dim=6, feature_dim=8, hidden_dim=8, beh_emb_dim=4)


def small(**named):
    modulator = named.pop("modulator", SMALL)
    return NeuralResponseNetwork(
        [3, 2],
        FrontendOptions(kernel_size=5),
        ConvNetOptions(channels=(4, 6, 8), **named),
        modulator,
    )


def inputs(batch=2, frames=20):
    torch.manual_seed(0)
    return torch.randn(batch, 1, frames, 20, 20), torch.randn(batch, 6)


def adapted(stimulus):
    """What the reference's adapter makes of the stimulus: blurred, scaled, 19 x 19.

    The width of its blur, 1.01879, was fitted; the adapter is not part of this package.
    """
    taps = torch.exp(-((torch.arange(-4, 4) / 1.01879) ** 2) / 2)
    taps = taps / taps.sum()
    frames = stimulus.transpose(1, 2).flatten(0, 1)
    blurred = F.conv2d(frames, torch.outer(taps, taps)[None, None], padding=3)
    line = torch.linspace(-1, 1, 19)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    grid = F.softplus(torch.tensor(0.0)) * torch.stack((columns, rows), dim=-1)
    sampled = F.grid_sample(blurred, grid.expand(len(frames), -1, -1, -1), align_corners=True)
    return sampled.unflatten(0, (len(stimulus), -1)).transpose(1, 2)


def test_reproduces_the_reference(golden):
    config = golden.cases["fullmodel"]["config"]
    network = NeuralResponseNetwork(
        [5, 3],
        convnet=reference_options(config["convnet"]["params"]),
        modulator=ModulatorOptions.from_dict(config["modulator"]["params"]),
    ).eval()
    weights = {
        name: value
        for name, value in golden.part("fullmodel", "w").items()
        if not name.startswith("adapters.")
    }
    network.load_state_dict(shaped(weights, network))
    with torch.no_grad():
        rates = network(
            adapted(golden.tensor("fullmodel", "stim")), golden.tensor("fullmodel", "behavior")
        )
    for index, rate in enumerate(rates):
        expected = golden.tensor("fullmodel", f"y_dataset{index}")
        torch.testing.assert_close(rate, expected, atol=1e-4, rtol=1e-4)
    assert ours("convnet.layers.0.main_block.components.norm.gamma") in network.state_dict()


def test_reference_shapes():
    network = NeuralResponseNetwork([7]).eval()
    shapes = {}
    parts = {
        "frontend": network.frontend,
        **{f"block{index}": block for index, block in enumerate(network.convnet.blocks)},
        "modulator": network.modulator,
        "readout": network.readouts[0],
    }
    for name, module in parts.items():
        module.register_forward_hook(
            lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    with torch.no_grad():
        network(torch.zeros(2, 1, 25, 51, 51), torch.zeros(2, 42))
    assert shapes == {
        "frontend": (2, 4, 10, 51, 51),
        "block0": (2, 64, 5, 26, 26),
        "block1": (2, 128, 3, 13, 13),
        "block2": (2, 256, 2, 6, 6),
        "modulator": (2, 256, 1, 6, 6),
        "readout": (2, 7),
    }


NETS = [
    {},
    {"conv_type": "standard"},
    {"conv_type": "standard", "use_weight_norm": True},
    {"norm_type": "batch"},
    {"norm_affine": False, "zero_init_residual": False},
    {"norm_type": "none", "zero_init_residual": False},
    {"sum_activation": "silu", "init": "relu"},
]
MODULATORS = [
    {"use_layer_norm": False},
    {"learnable_h0": False},
    {"use_depthwise": True},
    {"use_grouped": True, "num_groups": 4},
    {"use_residual": True, "hidden_dim": 12},
    {"grad_clip_val": 0.5},
    {"candidate": "standard"},
    {"candidate": "missing"},
    {"init": "default"},
]


@pytest.mark.parametrize(
    "named",
    NETS + [{"modulator": dataclasses.replace(SMALL, **m)} for m in MODULATORS],
    ids=lambda named: str(list(named.values()))[:40],
)
def test_every_switch_trains(named):
    torch.manual_seed(1)
    network = small(**named)
    stimulus, behavior = inputs()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    for _ in range(2):  # the second time no scale is zero any more
        optimizer.zero_grad()
        loss = sum(rate.exp().mean() for rate in network(stimulus, behavior))
        loss.backward()
        optimizer.step()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    dead = [name for name, p in trained.items() if p.grad.abs().max() == 0]
    assert not dead


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    network = small().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    stimulus, behavior = inputs()
    expected = network(stimulus, behavior)
    with torch.autocast("cpu", dtype):
        rates = network(stimulus, behavior)
    for rate, wanted in zip(rates, expected, strict=True):
        torch.testing.assert_close(rate.float(), wanted, atol=0.1, rtol=0.1)
    sum(rate.float().sum() for rate in rates).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


def test_core_is_what_the_readouts_read():
    network = small().eval()
    features = network.core(*inputs())
    assert features.shape[:3] == (2, 8, 1)
    rates = network(*inputs())
    assert torch.equal(rates[1], network.readouts[1](features))


def test_state_dict_holds_tensors_only_and_no_fixed_filter():
    names = small().state_dict()
    assert all(isinstance(value, torch.Tensor) for value in names.values())
    assert not any("blur" in name for name in names)
    modules = {name for name, module in small().named_modules() if isinstance(module, nn.Conv2d)}
    assert {"modulator.gru.cell.conv_x", "modulator.gru.cell.conv_h"} <= modules


def test_refuses():
    with pytest.raises(ValueError, match=r"cells=\[\]"):
        NeuralResponseNetwork([])
    with pytest.raises(ValueError, match=r"feature_dim=256 is not the last of .*\[4, 6, 8\]"):
        NeuralResponseNetwork([2], convnet=ConvNetOptions(channels=(4, 6, 8)))
    network = small()
    with pytest.raises(ValueError, match=r"stimulus has shape \(2, 12, 20, 20\)"):
        network(torch.zeros(2, 12, 20, 20), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="stimulus of 4 frames is shorter"):
        network(torch.zeros(2, 1, 4, 20, 20), torch.zeros(2, 6))


@pytest.mark.slow
def test_compiled_network_is_the_same():
    network = small()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    stimulus, behavior = inputs()
    compiled = torch.compile(network.eval(), backend="aot_eager")
    for rate, wanted in zip(compiled(stimulus, behavior), network(stimulus, behavior), strict=True):
        torch.testing.assert_close(rate, wanted, atol=1e-5, rtol=1e-4)
    sum(rate.sum() for rate in compiled(stimulus, behavior)).backward()
    got = {name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad}
    network.zero_grad()
    sum(rate.sum() for rate in network(stimulus, behavior)).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(got[name], parameter.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_compiled_network_trains():
    network = small(blocks=[{"dropout": 0.2}] * 3).train()
    compiled = torch.compile(network, backend="aot_eager")
    sum(rate.sum() for rate in compiled(*inputs())).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)
