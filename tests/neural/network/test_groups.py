"""The groups of the network are those that its layers stated themselves, before they were traced.

``groups.json`` was written by the tracer of the version before channel labels. Two things are no
longer in it: a recurrent block that is listed as a consumer without holding a tensor of its own,
and the matrix of the residual connection as a consumer (it passes channels on).
"""

import json
from pathlib import Path

import pytest

from lightning_prune.graph.trace import trace_groups
from tests.described_groups import describe
from tests.graph.cut import partition
from tests.neural.network.test_prunable import example, network

CASES = json.loads(Path(__file__).with_name("groups.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: str({k: v for k, v in case.items() if k != "groups"})
)
def test_the_groups_are_those_that_the_layers_stated(case: dict):
    groups = trace_groups(network(case.get("convnet"), case.get("modulator")), example())
    found, expected = describe(groups), case["groups"]
    # What is read in groups of a convolution was refused before.
    further = [name for name in found if name.startswith("convnet.blocks.2.shortcut")]
    if case.get("modulator", {}).get("use_grouped"):
        assert further
        found = {name: group for name, group in found.items() if name not in further}
    assert found == expected
    assert list(found) == list(expected)


def test_what_a_grouped_recurrence_reads_is_pruned_by_places():
    groups = trace_groups(network(modulator={"use_grouped": True, "num_groups": 4}), example())
    # 24 features and 8 of the behaviour in 4 groups of 8: the i-th of each.
    features, behavior = [[c, c + 8, c + 16] for c in range(8)], [[c] for c in range(8)]
    block = "convnet.blocks.2"
    assert partition(groups, f"{block}.shortcut") == {
        f"{block}.shortcut": features,
        f"{block}.main.conv.pointwise": features,
        f"{block}.main.pool.gate.expand": features,
        "modulator.beh_emb": behavior,
    }
    hidden = [[c + 4 * n for n in range(12)] for c in range(4)]
    assert partition(groups, "modulator.gru.cell.conv_x") == {
        "modulator.gru.cell.conv_x": hidden,
        "modulator.gru.cell.conv_h": hidden,
    }
