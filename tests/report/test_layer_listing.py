import re

import pytest
import torch

from lightning_prune.graph.macs import count_macs, layer_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.report.layer_listing import layer_listing
from lightning_prune.surgery.cut import cut_channels
from tests.networks import Concat, Depthwise, Residual

EXAMPLE = torch.zeros(1, 3, 8, 8)


def rows_of(text: str) -> dict[str, list[str]]:
    table = text.split("of MACs  group")[1].split("\n\n")[0].splitlines()[1:]
    return {line[2:].split()[0]: [line[:1].strip(), *line[2:].split()[1:]] for line in table}


@pytest.mark.parametrize("network", [Residual, Concat, Depthwise])
def test_shares_of_macs(network):
    torch.manual_seed(0)
    net = network()
    groups = trace_groups(net, EXAMPLE)
    dense = count_macs(net, EXAMPLE)
    own = layer_macs(net, EXAMPLE)
    rows = rows_of(layer_listing(net, groups, EXAMPLE))
    assert tuple(rows) == groups.prunable_layers
    for layer, row in rows.items():
        group = groups.group_of(layer)
        assert row[:3] == ["*", str(group.channels), f"{own[layer] / dense:.1%}"]
        if layer == group.name:
            # One channel stays in the cut model: what is left scales to the whole group.
            cut = network()
            kept = PruningPlan({layer: torch.tensor([0])}, {layer: group.channels})
            cut_channels(cut, trace_groups(cut, EXAMPLE), kept)
            saved = (
                (dense - count_macs(cut, EXAMPLE)) / dense * group.channels / (group.channels - 1)
            )
            assert float(row[4][:-1]) == pytest.approx(100 * saved, abs=0.06)


def test_selected_groups_are_marked_and_listed():
    net = Residual()
    groups = trace_groups(net, EXAMPLE)
    text = layer_listing(net, groups, EXAMPLE, ("b1.0",))
    assert re.search(r"Group number 1:\nSource conv: b1\.0\nDependencies:\nb2\.0\n\*+\n", text)
    assert "There are 1 groups of layers, with the following source convs:\n['b1.0']" in text
    rows = rows_of(text)
    assert [layer for layer, row in rows.items() if row[0] == "*"] == ["b1.0"]
    assert rows["a1.0"][3] == "-"
    assert "1 layers cannot be pruned:\n  head: its channels reach the output" in text
    assert text.endswith("1 groups are selected (*).")
