import pytest
import torch

from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.penalties.group_norms import group_norms
from tests.policies.fixtures import residual


@pytest.mark.parametrize("p", [1, 2])
def test_sums_over_everything_that_is_tied(p: int):
    net, groups = residual()
    expected = (
        net.a1[0].weight.abs().pow(p).flatten(1).sum(1)
        + net.a1[1].weight.abs().pow(p)
        + net.a2[0].weight.abs().pow(p).sum((0, 2, 3))
    ) / 3
    found = GroupNorm(p).importance(Evidence(net, groups["a1.0"]))
    torch.testing.assert_close(found, expected.detach().double())


def test_ranks_as_the_norms_of_the_regularizer():
    net, groups = residual()
    for name, norms in group_norms(net, groups).items():
        found = GroupNorm().importance(Evidence(net, groups[name]))
        assert torch.equal(found.argsort(), norms.argsort())


def test_another_p_is_refused():
    with pytest.raises(ValueError, match="p=3: pass 1 or 2"):
        GroupNorm(3)
