import pytest
import torch

from lightning_prune.neural.network.options import ConvNetOptions
from lightning_prune.neural.network.resnet import ResNet3d
from tests.neural.network.test_conv_block import block_of


def reference_options(config):
    blocks = [block_of(block)[0] for block in config["block_configs"]]
    return ConvNetOptions(channels=config["channels"], blocks=blocks)


def test_reproduces_the_reference_stage_by_stage(golden):
    resnet = ResNet3d(4, reference_options(golden.cases["resnet3"]["config"]))
    seen = []
    for block in resnet.blocks:
        block.register_forward_hook(lambda _m, _i, out: seen.append(out.detach()))
    golden.check("resnet3", resnet)
    for index, out in enumerate(seen):
        torch.testing.assert_close(
            out, golden.tensor("resnet3", f"stage{index}_out"), atol=1e-5, rtol=1e-4
        )


def test_reference_shapes():
    resnet = ResNet3d(4).eval()
    x = torch.zeros(2, 4, 10, 51, 51)
    for block, shape in zip(
        resnet.blocks, [(2, 64, 5, 26, 26), (2, 128, 3, 13, 13), (2, 256, 2, 6, 6)], strict=True
    ):
        x = block(x)
        assert x.shape == shape


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_any_number_of_frames(frames):
    resnet = ResNet3d(2, ConvNetOptions(channels=(4, 6, 8))).eval()
    assert resnet(torch.zeros(1, 2, frames, 20, 18)).shape[:2] == (1, 8)


def test_the_newest_of_ten_frames_is_not_read():
    torch.manual_seed(0)
    resnet = ResNet3d(2, ConvNetOptions(channels=(4, 6, 8))).eval()
    x = torch.randn(1, 2, 10, 20, 20)
    changed = x.clone()
    changed[:, :, 9] += 1.0
    assert torch.equal(resnet(x), resnet(changed))
    changed[:, :, 8] += 1.0
    assert not torch.equal(resnet(x), resnet(changed))
