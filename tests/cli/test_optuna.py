"""Several objectives in hydra-optuna-sweeper; `make test-optuna` installs it beside the others."""

import csv
from pathlib import Path

import pytest
import yaml

from lightning_prune.runs.sweep.sweep_callback import SweepCallback
from tests.cli.conftest import FAKE
from tests.overrides import NO_COST, TINY, TINY_WARNINGS

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


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def chosen(folder: Path) -> list[str]:
    """What the trials of a sweep were given, in their order."""
    words = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*/.hydra/over*"))]
    return [next(word for word in job if "dense_epochs" in word) for job in words]


def test_the_same_command_goes_on_with_a_search(cli, tmp_path: Path, monkeypatch):
    directions = "hydra.sweeper.direction=[maximize,minimize]"
    words = [directions, "objectives=[val/map50_95,macs]", "hydra.sweeper.n_trials=4"]
    whole = sweep(cli, tmp_path / "whole", *words)
    end = SweepCallback.on_job_end

    def interrupt(self, config, job_return, **kwargs):
        if config.hydra.job.num == 2:
            raise KeyboardInterrupt
        end(self, config, job_return, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SweepCallback, "on_job_end", interrupt)
        assert sweep(cli, tmp_path / "cut", *words).code == 130
    resumed = sweep(cli, tmp_path / "cut", *words)
    assert resumed.code == whole.code == 0, resumed.err
    assert resumed.out.count("is finished: it is not run again") == 2
    assert chosen(tmp_path / "cut") == chosen(tmp_path / "whole")
    results = [tmp_path / name / "optimization_results.yaml" for name in ("cut", "whole")]
    assert results[0].read_text() == results[1].read_text()


def test_a_run_that_fails_does_not_end_a_search(cli, tmp_path: Path):
    words = ["hydra.sweeper.max_failure_rate=1.0", "model.lr=choice(-1,0.2)"]
    outcome = sweep(cli, tmp_path / "sweep", "hydra.sweeper.direction=maximize", *words)
    assert outcome.code == 2
    assert "model: lr=-1 is not positive" in outcome.out
    assert {row["status"] for row in table(tmp_path / "sweep")} == {"ok", "failed"}
    assert (tmp_path / "sweep/optimization_results.yaml").is_file()


@pytest.mark.filterwarnings(*TINY_WARNINGS)
def test_the_shipped_search_trains_dense_epochs_once(cli, tmp_path: Path):
    small = [*TINY, *NO_COST, "hydra.sweeper.n_trials=2", "logger=none"]
    outcome = cli("+experiment=search", *small, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("epochs 1 to 1 are those of") == 1
    found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    for solution in found["solutions"]:
        assert solution["values"][1] <= solution["params"]["pruning.masker.mac_target"]
