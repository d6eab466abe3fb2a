"""The command line on real digits: prune, report, load, resume after the cut, dry run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import DetectionModule
from tests.overrides import TINY, TINY_PRUNING

PRUNE = ["+pruning=sequential_activation", *TINY, *TINY_PRUNING]


def width_of(folder: Path) -> int:
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return sum(value.numel() for name, value in state.items() if name.endswith("weight"))


@pytest.fixture
def pruned(cli: Callable[..., Any]) -> Any:
    outcome = cli(*PRUNE)
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_pruned_run_and_its_continuation(pruned: Any, cli: Callable[..., Any]):
    report = json.loads((pruned.folder / "pruning_report.json").read_text())
    dense, small = report["dense"], report["pruned"]
    assert small["macs"] <= 0.5 * dense["macs"]
    assert small["parameters"] < dense["parameters"]
    assert {"test/map50", "test/map50_95"} <= dense["metrics"].keys() & small["metrics"].keys()
    assert report["layers"]
    assert report["seed"] == 0
    last = pruned.folder / "checkpoints" / "last.ckpt"
    model = DetectionModule.load_from_checkpoint(last, map_location="cpu", weights_only=True)
    assert sum(p.numel() for p in model.parameters()) == small["parameters"]

    tested = cli("task=test", f"ckpt_path={last}", *TINY)
    assert tested.code == 0, tested.err
    assert f"test/map50_95 {small['metrics']['test/map50_95']:.4f}" in tested.out


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_resume_after_the_cut_keeps_the_widths(pruned: Any, cli: Callable[..., Any]):
    last = pruned.folder / "checkpoints" / "last.ckpt"
    resumed = cli(*PRUNE, f"ckpt_path={last}", "trainer.max_epochs=4")
    assert resumed.code == 0, resumed.err
    assert "epoch 4/4" in resumed.out
    assert width_of(resumed.folder) == width_of(pruned.folder)


def test_a_dry_run_changes_nothing(cli: Callable[..., Any]):
    outcome = cli(*PRUNE, "pruning.masker.dry_run=true", "dense_epochs=0")
    assert outcome.code == 0, outcome.err
    assert "network." in outcome.out + outcome.err
    assert not (outcome.folder / "pruning_report.json").exists()


def test_a_criterion_is_chosen_by_its_name(cli: Callable[..., Any]):
    outcome = cli(*PRUNE, "criterion=magnitude", "pruning.masker.dry_run=true", "dense_epochs=0")
    assert outcome.code == 0, outcome.err
    config = (outcome.folder / "config.yaml").read_text()
    assert "_target_: lightning_prune.pruners.magnitude.Magnitude" in config
