from typing import get_args

from lightning_prune.graph.macs import MacModel
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.selection.ranking import RANKINGS, Ranking, RankingRule
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from tests.networks import EXAMPLE
from tests.policies.fixtures import residual


def test_every_name_has_a_rule():
    assert get_args(Ranking) == tuple(RANKINGS)


def test_a_rule_of_ones_own_says_what_is_ranked_together():
    net, groups = residual()
    macs, names = MacModel.of(net, groups, EXAMPLE), tuple(groups)

    def by_first_letter(_model, _groups, names):
        return [ord(name[0]) for name in names]

    rule = RankingRule(by_first_letter)
    step = RatioSelection(groups, names, macs, Magnitude(), rule).select(net, 0.3, None)
    scopes = by_first_letter(net, groups, names)
    for scope in set(scopes):
        members = [name for name, own in zip(names, scopes, strict=True) if own == scope]
        total = sum(groups[name].channels for name in members)
        removed = total - sum(len(step.plan.keep[name]) for name in members)
        assert removed == -(-3 * total // 10)
