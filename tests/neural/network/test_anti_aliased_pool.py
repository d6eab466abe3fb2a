import pytest
import torch

from lightning_prune.neural.network.anti_aliased_pool import AntiAliasedPool


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("size", ["8x8", "7x5"])
def test_reproduces_the_reference(golden, soft, size):
    case = f"aablur_soft{int(soft)}_{size}"
    golden.check(case, AntiAliasedPool(8, stride=2, reduction=4, use_soft=soft))


def test_reduction_beyond_the_channels_leaves_one_unit():
    pool = AntiAliasedPool(4, reduction=16)
    assert pool.gate.reduce.out_channels == 1
    assert pool(torch.zeros(1, 4, 2, 4, 4)).shape == (1, 4, 2, 2, 2)


@pytest.mark.parametrize("named", [{"stride": 0}, {"reduction": 0}])
def test_refuses(named):
    with pytest.raises(ValueError, match="pass an integer of at least 1"):
        AntiAliasedPool(4, **named)
