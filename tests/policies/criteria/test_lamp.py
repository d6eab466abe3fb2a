import pytest
import torch

from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.lamp import LAMP
from lightning_prune.surgery.mask import ChannelMask
from tests.networks import EXAMPLE
from tests.policies.fixtures import residual


@pytest.mark.parametrize("p", [1, 2])
def test_the_share_of_what_is_as_large_or_larger(p: int):
    net, groups = residual()
    for name, group in groups.items():
        norm = GroupNorm(p).importance(Evidence(net, group))
        expected = torch.stack([value / norm[norm >= value].sum() for value in norm])
        found = LAMP(p).importance(Evidence(net, groups[name]))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
        assert float(found.max()) == pytest.approx(1.0)


def test_scores_are_compared_between_groups_as_they_are():
    net, groups = residual()
    macs = MacModel.of(net, groups, EXAMPLE)
    found = LAMP().comparable(net, groups, tuple(groups), macs, PruningPlan())
    for name, group in groups.items():
        assert torch.equal(found[name], LAMP().importance(Evidence(net, group)))


def test_masked_channels_do_not_change_the_score_of_the_others():
    net, groups = residual()
    macs = MacModel.of(net, groups, EXAMPLE)
    before = LAMP().comparable(net, groups, ("a1.0",), macs, PruningPlan())["a1.0"]
    order = before.argsort()
    held = PruningPlan({"a1.0": order[2:].sort()[0]}, {"a1.0": 6})
    ChannelMask(net, groups, held).apply()
    after = LAMP().comparable(net, groups, ("a1.0",), macs, held)["a1.0"]
    torch.testing.assert_close(after[order[2:]], before[order[2:]])
    assert after[order[:2]].tolist() == [0.0, 0.0]


def test_another_p_is_refused():
    with pytest.raises(ValueError, match="p=3: pass 1 or 2"):
        LAMP(3)
