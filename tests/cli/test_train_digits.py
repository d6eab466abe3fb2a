"""The command line on real digits: prune, report, load, resume after the cut, dry run."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_prune import DetectionModule
from tests.overrides import FEW_LAYERS, NO_COST, TINY, TINY_PRUNING, TINY_WARNINGS

pytestmark = pytest.mark.filterwarnings(*TINY_WARNINGS)
PRUNE = ["+pruning=sequential_activation", *TINY, *TINY_PRUNING, *NO_COST]


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_prune_then_load_test_and_resume(cli: Callable[..., Any]):
    pruned = cli(*PRUNE)
    assert pruned.code == 0, pruned.err
    report = json.loads((pruned.folder / "pruning_report.json").read_text())
    dense, small = report["dense"], report["pruned"]
    assert small["macs"] <= 0.5 * dense["macs"]
    assert {"test/map50", "test/map50_95"} <= dense["metrics"].keys() & small["metrics"].keys()
    assert report["layers"]
    assert report["seed"] == 0

    last = pruned.folder / "checkpoints" / "last.ckpt"
    model = DetectionModule.load_from_checkpoint(last, map_location="cpu", weights_only=True)
    assert count(model) == small["parameters"] < dense["parameters"]

    tested = cli("task=test", f"ckpt_path={last}", *TINY)
    assert tested.code == 0, tested.err
    assert f"test/map50_95 {small['metrics']['test/map50_95']:.4f}" in tested.out

    resumed = cli(*PRUNE, f"ckpt_path={last}", "trainer.max_epochs=4")
    assert resumed.code == 0, resumed.err
    assert "epoch 4/4" in resumed.out
    again = resumed.folder / "checkpoints" / "last.ckpt"
    model = DetectionModule.load_from_checkpoint(again, map_location="cpu", weights_only=True)
    assert count(model) == small["parameters"]


def test_a_dry_run_changes_nothing(cli: Callable[..., Any]):
    words = ["criterion=magnitude", "pruning.masker.dry_run=true", "dense_epochs=0"]
    outcome = cli(*PRUNE, *FEW_LAYERS, *words)
    assert outcome.code == 0, outcome.err
    assert "network.backbone.p5.down.conv" in outcome.out
    assert "everything of this run" not in outcome.out
    assert not (outcome.folder / "pruning_report.json").exists()
    config = (outcome.folder / "config.yaml").read_text()
    assert "_target_: lightning_prune.policies.criteria.magnitude.Magnitude" in config
