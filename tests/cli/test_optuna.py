"""Several objectives in hydra-optuna-sweeper; `make test-optuna` installs it beside the others."""

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import FAKE

pytest.importorskip("optuna", reason="make test-optuna installs it")
pytestmark = pytest.mark.filterwarnings("default")  # optuna 2 is older than its dependencies


def sweep(cli, folder: Path, *words: str):
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    place = [f"hydra.sweep.dir={folder}", "hydra.sweeper.sampler.seed=0", "logger=none"]
    return cli(*FAKE, "-m", "dense_epochs=choice(1,2)", *sweeper, *place, *words)


def test_optuna_is_given_several_values_in_their_order(cli, tmp_path: Path):
    folder = tmp_path / "sweep"
    directions = "hydra.sweeper.direction=[maximize,minimize]"
    outcome = sweep(cli, folder, directions, "objectives=[val/map50_95,macs]")
    assert outcome.code == 0, outcome.err
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    # The metric of the fake model is its number of epochs; nothing is pruned.
    assert found["solutions"]
    for solution in found["solutions"]:
        assert solution["values"] == [float(solution["params"]["dense_epochs"]), 1.0]


def test_optuna_is_given_one_value_as_ever(cli, tmp_path: Path):
    folder = tmp_path / "sweep"
    outcome = sweep(cli, folder, "hydra.sweeper.direction=maximize")
    assert outcome.code == 0, outcome.err
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert found["best_value"] == float(found["best_params"]["dense_epochs"])
