"""Jobs of a sweep that agree until pruning starts train those epochs once."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lightning_prune.cli.shared_dense import dense_facts
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.runs.sweep import dense_store
from lightning_prune.runs.sweep.dense_store import DENSE, DenseStore, digest_of
from tests.cli.conftest import FAKE
from tests.overrides import NO_COST, TINY, TINY_WARNINGS

SWEEP = ["-m", *FAKE, "+pruning=scaler", "dense_epochs=2", "recovery_epochs=2"]
SHARED = "epochs 1 to 2 are those of"


def of(folder: Path, job: int) -> tuple[Any, ...]:
    """What a job logged, what it came to, its files, and its weights and best score at the end."""
    with (folder / f"{job}/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    result = json.loads((folder / f"{job}/result.json").read_text())
    checkpoints = folder / f"{job}/checkpoints"
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)
    scores = {
        name: (float(state["best_model_score"]), Path(state["best_model_path"]).name)
        for name, state in last["callbacks"].items()
        if state.get("best_model_score") is not None
    }
    assert scores, "the best of the whole run is known"
    weights = {name: tensor.tolist() for name, tensor in last["state_dict"].items()}
    return rows, result, sorted(path.name for path in checkpoints.iterdir()), scores, weights


def test_jobs_end_as_if_each_had_trained_alone(cli: Callable[..., Any], tmp_path: Path):
    factors = "pruning.scaler.factor=0.5,0.25,2"
    one, alone = tmp_path / "one", tmp_path / "alone"
    outcome = cli(*SWEEP, factors, f"hydra.sweep.dir={one}")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(SHARED) == 2
    assert "warning" not in outcome.out + outcome.err
    assert not (one / DENSE).exists(), "what is not needed any more is removed"
    again = cli(*SWEEP, factors, f"hydra.sweep.dir={alone}", "share_dense=false")
    assert SHARED not in again.out
    for job in range(3):
        assert of(one, job) == of(alone, job)
    values = [of(one, job)[1]["metrics"]["test/map50_95"] for job in range(3)]
    assert len(set(values)) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings(*TINY_WARNINGS)
def test_the_shipped_stages_end_as_if_each_had_trained_alone(
    cli: Callable[..., Any], tmp_path: Path
):
    one, alone = tmp_path / "one", tmp_path / "alone"
    small = [*TINY, *NO_COST, "dense_epochs=2", "recovery_epochs=3"]
    words = ["-m", "+pruning=channel", *small, "pruning.masker.mac_target=0.8,0.6"]
    outcome = cli(*words, f"hydra.sweep.dir={one}")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(SHARED) == 1
    assert cli(*words, f"hydra.sweep.dir={alone}", "share_dense=false").code == 0
    assert of(one, 0) == of(alone, 0) != of(one, 1) == of(alone, 1)


def test_what_acts_before_is_not_shared(cli: Callable[..., Any], tmp_path: Path):
    for number, other in enumerate(("model.lr=0.1,0.2", "seed=0,1", "recovery_epochs=1,2")):
        outcome = cli(*SWEEP, other, f"hydra.sweep.dir={tmp_path / str(number)}")
        assert outcome.code == 0, outcome.err
        assert SHARED not in outcome.out


def test_files_that_changed_are_trained_again(cli: Callable[..., Any], tmp_path: Path):
    # The third job fails, so that what they have in common stays.
    sweep = ["pruning.scaler.factor=0.5,0.25,bad", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert cli(*SWEEP, *sweep).code == 2
    kept = next((tmp_path / "sweep" / DENSE).iterdir())
    (kept / "checkpoints/last.ckpt").write_bytes(b"another")
    again = cli(*SWEEP, sweep[0].replace("bad", "3"), sweep[1], "resume=never")
    assert again.code == 0, again.err
    assert "are trained again: checkpoints/last.ckpt changed" in again.out
    assert again.out.count(SHARED) == 2


def test_a_job_waits_for_the_one_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dense_store, "_LOOK", 0.0)
    owners = iter(["process 7", "process 7", None])
    monkeypatch.setattr(dense_store, "working_owner", lambda folder: next(owners))
    said: list[str] = []
    monkeypatch.setattr(dense_store, "say", said.append)
    store = DenseStore.of(tmp_path, tmp_path / "1", {"seed": 0})
    assert store.take() is None
    assert said == ["waiting for the dense epochs, which process 7 trains for this job too"]
    assert (store.folder / "run.lock").is_file(), "now it trains them"
    store.close()
    assert not (store.folder / "run.lock").exists()


def test_a_full_disk_costs_no_run(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dense_store, "_copy_file", full)
    words = ["pruning.scaler.factor=0.5,0.25", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    with pytest.warns(UserWarning, match="cannot be kept in .* \\(No space left on device\\)"):
        outcome = cli(*SWEEP, *words)
    assert outcome.code == 0, outcome.err
    assert SHARED not in outcome.out


def test_one_that_was_ready_a_moment_ago_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = DenseStore.of(tmp_path, tmp_path / "1", {"seed": 0})
    found = {"files": [], "checkpoint": "last.ckpt"}
    monkeypatch.setattr(DenseStore, "_read", lambda self: found)
    monkeypatch.setattr(DenseStore, "_copy", lambda self, found: found)
    assert store.take() == found
    assert not (store.folder / "run.lock").exists(), "others may take them too"


@pytest.fixture
def composed() -> Iterator[Callable[..., DictConfig]]:
    """A function that composes the shipped configuration."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield lambda *words: compose("train", ["output_dir=out", *words])


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["pruning.masker.mac_target=0.3"], True),
        (["criterion=fpgm"], True),
        (["pruning.pruner.recalibrate_images=0"], True),
        (["+stage@pruning.distiller=distiller"], True),
        (["output_dir=elsewhere"], True),
        (["pruning.masker.start_epoch=3"], False),
        (["pruning.masker.attention=width"], False),
        (["pruning.regularizer.reg=0.01"], False),
        (["pruning.regularizer=null"], False),
        (["recovery_epochs=5"], False),
        (["callbacks.ema=null"], False),
        (["data.batch_size=3"], False),
    ],
)
def test_stages_behind_the_dense_epochs_do_not_count(
    composed: Callable[..., DictConfig], words: list[str], same: bool
):
    one = dense_facts(composed("+pruning=channel"))
    other = dense_facts(composed("+pruning=channel", *words))
    assert (digest_of(one) == digest_of(other)) is same


def test_recipes_without_a_penalty_share(composed: Callable[..., DictConfig]):
    recipes = ("magnitude", "compress", "sequential_activation")
    facts = [dense_facts(composed(f"+pruning={recipe}")) for recipe in recipes]
    assert len({digest_of(one) for one in facts}) == 1
