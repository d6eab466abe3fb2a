"""Two processes decide the same, cut the same, and train on together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_prune.surgery.architecture import RECORD
from tests.callbacks.classifiers import GROUPS, Classifier, masker, trainer

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-m", "tests.callbacks.distributed_run", str(folder), "ddp"]
    # Lightning's own launcher starts the second process with the same command.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "LOCAL_", "NODE_"))}
    environment = kept | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [torch.load(folder / f"rank{n}.pt", weights_only=True) for n in (0, 1)]


def test_both_ranks_hold_the_same_plan_and_weights(ranks):
    _, (first, second) = ranks
    assert first["ranks"] == 2
    assert first["batches"] == 3
    for name in GROUPS:
        assert first["keep"][name].tolist() == second["keep"][name].tolist()
    assert torch.equal(first["kept_by_gradient"], second["kept_by_gradient"])
    assert len(first["kept_by_gradient"]) == 12
    for stage in ("norms", "at_cut", "weights"):
        assert first[stage].keys() == second[stage].keys()
        for name, value in first[stage].items():
            assert torch.equal(value, second[stage][name]), name


def test_training_goes_on_after_the_cut(ranks):
    _, both = ranks
    for rank in both:
        assert rank["bound"]
        for name, value in rank["weights"].items():
            assert bool((value != rank["at_cut"][name]).all()), name


def test_the_statistics_of_both_ranks_are_merged(ranks, tmp_path):
    """Oracle: one process that sees all images decides the same before training."""
    _, (first, _) = ranks
    stage = masker(layers_per_step=2, mac_target=0.4, recalibrate_images=0)
    trainer(tmp_path, [stage], 3, limit_train_batches=1).fit(Classifier())
    for decision in stage.decisions[:2]:
        assert decision.keep.tolist() == first["keep"][decision.group].tolist()


def test_gradients_are_averaged_over_the_ranks(ranks):
    """Oracle: one process that sees the images of both; only rank 0 is asked."""
    _, (first, second) = ranks
    assert second["gradient"] is None
    torch.testing.assert_close(first["gradient"], first["expected_gradient"], atol=1e-6, rtol=1e-4)


def test_report_and_dense_checkpoint_are_written_once(ranks):
    folder, (first, _) = ranks
    content = json.loads((folder / "pruning_report.json").read_text())
    after = {row["name"]: row["channels_after"] for row in content["layers"]}
    assert {name: after[name] for name in GROUPS} == first["widths"]
    assert all(width <= len(first["keep"][name]) for name, width in first["widths"].items())
    dense = torch.load(folder / "dense.ckpt", weights_only=True)["state_dict"]
    assert RECORD not in dense
    assert dense["net.deep.0.weight"].shape[0] == 16


def test_faults_are_met_by_both_ranks_alike(tmp_path):
    """No rank waits for one that has stopped, or masks what the other does not."""
    command = [sys.executable, "-m", "tests.callbacks.distributed_faults", str(tmp_path)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "LOCAL_", "NODE_"))}
    environment = kept | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{n}.pt", weights_only=True) for n in (0, 1))
    assert first == second
    assert first["masked"][:2] == [{}, {}]
    assert sorted(first["masked"][2]) == sorted(GROUPS)
    assert first["step"] == 12
    assert "the weights are NaN or infinite at epoch 4, global step 12" in first["error"]
    assert "the loss was NaN or infinite first at global step 10. No channel" in first["error"]
