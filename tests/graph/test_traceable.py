import pytest
import torch
from torch import nn

from lightning_prune.graph.traceable import check_traceable
from lightning_prune.surgery.build_groups import build_groups
from tests.networks import EXAMPLE, Residual


def test_a_plain_network_passes():
    assert check_traceable(Residual()) is None


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: nn.DataParallel(Residual()), r"wrapped in DataParallel: pass model\.module"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.LazyConv2d(4, 1)),
            r"layer '1' \(LazyConv2d\) has no weights yet",
        ),
        (lambda: nn.Sequential(nn.LazyBatchNorm2d()), r"layer '0' \(LazyBatchNorm2d\)"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 8, 1), torch.jit.script(nn.Conv2d(8, 4, 1))),
            "module '1' is scripted",
        ),
        (
            lambda: nn.Sequential(torch.ao.nn.quantized.Linear(3, 4)),
            r"layer '0' \(quantized Linear\)",
        ),
    ],
    ids=["wrapped", "lazy", "lazy norm", "scripted", "quantized"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_cannot_be_seen_is_named(net, message):
    with pytest.raises(ValueError, match=message):
        build_groups(net(), EXAMPLE)


def test_a_forward_pass_that_fails_is_told_with_the_shapes():
    with pytest.raises(ValueError, match=r"eval mode fails .* \(1, 4, 8, 8\) \(Runtime"):
        build_groups(Residual(), torch.zeros(1, 4, 8, 8))
