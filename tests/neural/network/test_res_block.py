import pytest
import torch
from torch import nn

from lightning_prune.neural.network.initialize import initialize
from lightning_prune.neural.network.options import BlockOptions, ConvNetOptions, PoolOptions
from lightning_prune.neural.network.res_block import ResBlock
from tests.neural.network.test_conv_block import block_of


def test_reproduces_the_reference(golden):
    block, net = block_of(golden.cases["resblock_identity"]["config"])
    residual = ResBlock(8, 8, block, net)
    assert isinstance(residual.shortcut, nn.Identity)
    golden.check("resblock_identity", residual)


@pytest.mark.parametrize("pool", [None, PoolOptions()])
@pytest.mark.parametrize("stride", [1, 2])
def test_is_the_sum_of_both_paths_cut_to_one_size(stride, pool):
    torch.manual_seed(0)
    options = BlockOptions(kernel_size=(3, 5, 5), stride=stride, padding=3, pool=pool)
    residual = ResBlock(3, 4, options, ConvNetOptions(sum_activation="relu")).eval()
    for time, height, width in ((1, 9, 9), (5, 12, 17), (6, 13, 10)):
        x = torch.randn(2, 3, time, height, width)
        main = residual.main(x)
        total = stride * (2 if pool else 1)
        shortcut = nn.functional.conv3d(x, residual.shortcut.weight, stride=total)
        out = residual(x)
        frames, rows, columns = (min(main.shape[d], shortcut.shape[d]) for d in (2, 3, 4))
        assert out.shape == (2, 4, frames, rows, columns)
        cut = [
            part[:, :, part.shape[2] - frames :]
            .narrow(3, (part.shape[3] - rows) // 2, rows)
            .narrow(4, (part.shape[4] - columns) // 2, columns)
            for part in (main, shortcut)
        ]
        torch.testing.assert_close(out, (cut[0] + cut[1]).relu())


def test_starts_as_its_shortcut():
    residual = ResBlock(4, 4, BlockOptions(), ConvNetOptions())
    initialize(residual)
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(residual(x), x)


def test_compiles_in_one_piece():
    torch.manual_seed(0)
    options = BlockOptions(kernel_size=(3, 5, 5), padding=3, dropout=0.2, pool=PoolOptions())
    residual = ResBlock(3, 4, options, ConvNetOptions()).eval()
    compiled = torch.compile(residual, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 5, 12, 13)
    torch.testing.assert_close(compiled(x), residual(x))
    wanted = torch.autograd.grad(residual(x).square().sum(), residual.parameters())
    got = torch.autograd.grad(compiled(x).square().sum(), residual.parameters())
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert compiled.train()(x).isfinite().all()
