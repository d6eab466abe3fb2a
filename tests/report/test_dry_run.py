import torch

from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.dry_run import dry_run_text
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, Residual, make


def test_the_text_tells_what_the_cut_would_leave():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    decisions = [
        GroupDecision("stem.0", torch.arange(3), 8, 4, "mac_target", "pruned", ""),
        GroupDecision("a1.0", torch.arange(6), 6, None, "none", "left", "6 channels are enough"),
    ]
    text = dry_run_text(decisions, macs)
    assert text.startswith("Dry run: nothing is masked, cut or trained.")
    lines = [line.split() for line in text.splitlines()]
    assert ["stem.0", "8", "3", "4", "mac_target"] in lines
    assert ["a1.0", "6", "6", "-", "6", "channels", "are", "enough"] in lines
    cut_channels(net, groups, PruningPlan({"stem.0": torch.arange(3)}, {"stem.0": 8}))
    left = count_macs(net, EXAMPLE) / macs.total
    assert text.endswith(f"leaves {left:.1%} of {macs.total / 1e6:.1f} million MACs")


def test_nothing_to_prune_leaves_everything():
    net = make(Residual)
    macs = MacModel.of(net, trace_groups(net, EXAMPLE), EXAMPLE)
    assert "leaves 100.0% of" in dry_run_text([], macs)
