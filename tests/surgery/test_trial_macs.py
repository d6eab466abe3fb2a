import pytest
import torch
from torch import nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.trial_macs import TrialMacs, plan_of
from tests.graph.factors import Bare, bare_groups
from tests.networks import EXAMPLE, Residual, make, random_plan


def test_what_comes_out_as_predicted_is_not_named():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    trial = TrialMacs(net, groups, random_plan(groups), EXAMPLE, call)
    assert trial.miscounted(list(groups)) == {}


def test_a_width_that_costs_otherwise_is_named():
    class Twice(nn.Module):
        """Runs its last layer twice as long as the cut makes it narrower."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.a(x)
            for _ in range(1 if x.shape[1] == 8 else 2):
                y = self.b(x)
            return y

    net = Twice()
    groups = trace_groups(net, EXAMPLE)
    miscounted = TrialMacs(net, groups, random_plan(groups), EXAMPLE, call).miscounted(["a"])
    assert miscounted == {"a": "the MACs of layer 'b' do not follow its width as predicted"}


def test_the_plan_of_some_groups():
    plan = random_plan(trace_groups(make(Residual), EXAMPLE))
    assert list(plan_of(plan, ["a1.0"]).keep) == ["a1.0"]


def test_matrices_that_no_layer_holds_cost_rows_times_columns():
    torch.manual_seed(0)
    net = Bare()
    tokens = torch.arange(12).view(3, 4) % 9
    groups = trace_groups(net, tokens)
    parts = {names: part for group in groups.values() for part, names in group.products}
    known = bare_groups()
    assert sum(parts.values()) == pytest.approx(1.0)
    assert {len(names) for names in parts} == {2}
    assert {group.channels for group in groups.values()} == {g.channels for g in known.values()}
    trial = TrialMacs(net, groups, random_plan(groups), tokens, call)
    assert trial.miscounted(list(groups)) == {}
