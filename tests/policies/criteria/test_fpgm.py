import pytest
import torch

from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.fpgm import FPGM
from tests.policies.fixtures import residual


def test_a_channel_like_the_others_goes_and_an_outlier_stays():
    net, groups = residual()
    with torch.no_grad():
        net.a1[0].weight.normal_(0, 0.01).add_(1.0)
        net.a2[0].weight.normal_(0, 0.01).add_(1.0)
        net.a1[0].weight[4] = 3.0
        net.a1[0].weight[1] = 0.0  # small, and unlike the others all the same
    keep = FPGM().choose(Evidence(net, groups["a1.0"]), 2)
    assert keep.tolist() == [1, 4]


@pytest.mark.parametrize("p", [1, 2])
def test_distances_by_hand(p: int):
    net, groups = residual()
    expected = torch.zeros(6)
    for w in (net.a1[0].weight.flatten(1), net.a2[0].weight.transpose(0, 1).flatten(1)):
        w = w.detach().abs() ** p
        expected += torch.stack([(w - row).norm(dim=1).sum() for row in w])
    found = FPGM(p).importance(Evidence(net, groups["a1.0"]))
    torch.testing.assert_close(found, (expected / 2).double(), rtol=1e-4, atol=1e-6)


def test_another_p_is_refused():
    with pytest.raises(ValueError, match="p=0: pass 1 or 2"):
        FPGM(0)
