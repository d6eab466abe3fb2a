"""The detector's groups are those that torch-pruning's graph gave (``groups.json``)."""

import json
from pathlib import Path

import torch

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.trace import trace_groups
from tests.described_groups import describe


def test_the_groups_are_those_of_the_earlier_tracer():
    expected = json.loads(Path(__file__).with_name("groups.json").read_text(encoding="utf-8"))
    found = describe(trace_groups(YOLOv8(num_classes=3), torch.zeros(1, 3, 64, 64)))
    assert found == expected
    assert list(found) == list(expected)
