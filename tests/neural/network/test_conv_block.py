import pytest
import torch
from torch import nn

from lightning_prune.neural.network.conv_block import ConvBlock
from lightning_prune.neural.network.options import BlockOptions, ConvNetOptions, PoolOptions
from lightning_prune.neural.network.weight_norm_conv import WeightNormConv3d

STANDARD = ConvNetOptions(conv_type="standard")


def block_of(config):
    """Our options of a block of the reference's configuration."""
    conv, pool = config["conv_params"], config["pool_params"]
    block = BlockOptions(
        kernel_size=conv["kernel_size"],
        stride=conv["stride"],
        dilation=conv.get("dilation", 1),
        padding=conv["padding"][1:],
        dropout=config["dropout"],
        pool=pool and PoolOptions(pool["stride"], pool["r"], pool["use_soft"]),
    )
    return block, ConvNetOptions(conv_type=conv["type"])


@pytest.mark.parametrize("stage", ["stage0", "stage1", "stage2", "standard"])
def test_reproduces_the_reference(golden, stage):
    case = f"convblock_{stage}"
    golden.check(case, ConvBlock(4, 8, *block_of(golden.cases[case]["config"])))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("time", [1, 4, 7])
def test_fewer_frames_are_the_last_of_all(stride, dilation, time):
    torch.manual_seed(0)
    options = BlockOptions(stride=stride, dilation=dilation, pool=PoolOptions())
    block = ConvBlock(3, 4, options, ConvNetOptions()).eval()
    x = torch.randn(2, 3, time, 12, 12)
    everything = block(x)
    made = block.frames_made(time)
    assert everything.shape[2] == made
    for frames in range(1, made + 1):
        torch.testing.assert_close(block(x, frames), everything[:, :, made - frames :])


def test_a_frame_depends_on_no_later_one():
    torch.manual_seed(0)
    block = ConvBlock(2, 3, BlockOptions(kernel_size=3, dilation=2), ConvNetOptions()).eval()
    x = torch.randn(1, 2, 6, 5, 5)
    changed = x.clone()
    changed[:, :, 4:] += 1.0
    before, after = block(x), block(changed)
    torch.testing.assert_close(before[:, :, :4], after[:, :, :4])
    assert not torch.allclose(before[:, :, 4], after[:, :, 4])


def test_depthwise_has_a_tenth_to_a_fifth_of_the_parameters():
    for width, made, kernel in ((64, 128, (3, 5, 5)), (128, 256, 3), (64, 64, 3)):
        options = BlockOptions(kernel_size=kernel)
        counts = [
            sum(p.numel() for p in ConvBlock(width, made, options, net).conv.parameters())
            for net in (ConvNetOptions(), STANDARD)
        ]
        assert counts[0] <= 0.2 * counts[1]


@pytest.mark.parametrize(
    ("net", "norm", "conv"),
    [
        (ConvNetOptions(norm_type="batch"), nn.BatchNorm3d, None),
        (ConvNetOptions(norm_type="none"), nn.Identity, None),
        (STANDARD, None, nn.Conv3d),
        (ConvNetOptions(conv_type="standard", use_weight_norm=True), None, WeightNormConv3d),
    ],
)
def test_kinds_of_norm_and_convolution(net, norm, conv):
    block = ConvBlock(2, 3, BlockOptions(), net)
    assert norm is None or type(block.norm) is norm
    assert conv is None or type(block.conv) is conv
    out = block(torch.randn(2, 2, 3, 4, 4))
    assert out.shape == (2, 3, 3, 4, 4)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())


def test_dropout_in_training_only():
    torch.manual_seed(0)
    block = ConvBlock(2, 8, BlockOptions(dropout=0.5), ConvNetOptions())
    x = torch.randn(4, 2, 3, 8, 8)
    plain = block.eval()(x)
    dropped = block.train()(x)
    gone = dropped == 0
    assert 0.45 < gone.float().mean() < 0.55
    torch.testing.assert_close(dropped[~gone], 2 * plain[~gone])


def test_hooks_fire_on_every_layer():
    seen = set()
    block = ConvBlock(2, 4, BlockOptions(dropout=0.1, pool=PoolOptions()), ConvNetOptions())
    for name, module in block.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: seen.add(name))
    block(torch.randn(1, 2, 3, 6, 6))
    assert seen == {
        "conv.depthwise", "conv.pointwise", "norm", "act", "drop",
        "pool.gate.reduce", "pool.gate.act", "pool.gate.expand",
    }  # fmt: skip


def test_small_frames_are_refused():
    block = ConvBlock(1, 2, BlockOptions(kernel_size=5, padding=0), ConvNetOptions())
    with pytest.raises(ValueError, match="frames with 4 rows are too small for a kernel of 5"):
        block(torch.zeros(1, 1, 2, 4, 6))
