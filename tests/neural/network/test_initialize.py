import pytest
import torch
from torch import nn

from lightning_prune.neural.network.initialize import initialize
from lightning_prune.neural.network.options import BlockOptions, ConvNetOptions
from lightning_prune.neural.network.resnet import ResNet3d
from lightning_prune.neural.network.weight_norm_conv import WeightNormConv3d


def resnet(**named):
    block = BlockOptions(kernel_size=3)
    return ResNet3d(4, ConvNetOptions(channels=(64, 64), blocks=(block, block), **named))


@pytest.mark.parametrize(("nonlinearity", "slope"), [("leaky_relu", 0.01), ("relu", 0.0)])
def test_standard_deviation_of_the_weights(nonlinearity, slope):
    torch.manual_seed(0)
    network = resnet(conv_type="standard")
    initialize(network, nonlinearity)
    weight = network.blocks[1].main.conv.weight
    expected = (2 / (1 + slope**2) / (64 * 27)) ** 0.5
    assert weight.std().item() == pytest.approx(expected, rel=0.01)
    assert abs(weight.mean().item()) < 0.01 * expected * 10


@pytest.mark.parametrize("norm", ["rms", "batch"])
def test_last_norms_start_at_zero_scale(norm):
    network = resnet(norm_type=norm)
    initialize(network)
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(network(x), network.blocks[1].shortcut(network.blocks[0].shortcut(x)))
    network = resnet(norm_type=norm)
    initialize(network, zero_init_residual=False)
    scale = network.blocks[0].main.norm
    assert torch.equal(scale.gamma if norm == "rms" else scale.weight, torch.ones(64))


def test_gains_follow_the_new_weights():
    network = resnet(conv_type="standard", use_weight_norm=True)
    initialize(network)
    convs = [module for module in network.modules() if isinstance(module, WeightNormConv3d)]
    assert len(convs) == 2
    for conv in convs:
        torch.testing.assert_close(conv.gain, conv.weight.flatten(1).norm(dim=1))


def test_biases_are_zero():
    network = resnet(norm_type="none", conv_type="standard")
    initialize(network, zero_init_residual=False)
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv3d) and m.bias is not None]
    assert biases
    assert all(torch.equal(bias, torch.zeros_like(bias)) for bias in biases)


@pytest.mark.parametrize("named", [{"norm_type": "none"}, {"norm_affine": False}])
def test_warns_where_there_is_no_scale(named):
    with pytest.warns(UserWarning, match=r"no effect on blocks.0, blocks.1: their norms have no"):
        initialize(resnet(**named))
