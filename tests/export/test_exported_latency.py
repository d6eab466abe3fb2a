import importlib.util

import pytest
import torch
from torch import nn

from lightning_prune.export.exported_latency import exported_latency
from tests.export.networks import Branching

onnxruntime = pytest.importorskip("onnxruntime")


def test_both_networks_are_timed_in_onnx_runtime():
    wide, narrow = (nn.Conv2d(width, width, 3) for width in (256, 64))
    models = {
        "dense": nn.Sequential(nn.Conv2d(3, 256, 1), wide),
        "pruned": nn.Sequential(nn.Conv2d(3, 64, 1), narrow),
    }
    found = exported_latency(models, torch.zeros(2, 3, 40, 40), rounds=3)
    assert found is not None
    taken, runtime = found
    assert runtime == f"ONNX Runtime {onnxruntime.__version__}"
    assert taken.keys() == models.keys()
    assert all(milliseconds > 0 for milliseconds in taken.values())


def test_what_cannot_be_converted_or_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch):
    example = torch.rand(1, 4)
    assert exported_latency({"one": Branching()}, example, 1) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    assert exported_latency({"one": nn.Linear(4, 4)}, example, 1) is None
