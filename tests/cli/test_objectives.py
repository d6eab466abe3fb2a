"""What a run returns where a sweeper asks for several values."""

from pathlib import Path

import pytest
import torch

from lightning_prune.cli.objectives import objective_values, returned
from lightning_prune.cli.train import run
from lightning_prune.errors import ConfigError
from lightning_prune.files.read_json import read_json
from lightning_prune.runs.run_result import RESULT
from tests.cli.test_train import composed

SMALL = ["dense_epochs=2", "logger=none", "trainer.num_sanity_val_steps=0"]


def test_a_run_returns_them_in_their_order(tmp_path: Path):
    names = "objectives=[macs,val/map50_95,test/map50_95]"
    found = run(composed(tmp_path / "a", *SMALL, names))
    # The fake metric is the number of epochs; nothing is pruned; the test's is the weight.
    content = read_json(tmp_path / "a" / RESULT)
    assert content is not None
    weight = content["metrics"]["test/map50_95"]
    assert found == (1.0, 2.0, weight)
    assert list(content["objectives"].items()) == [
        ("macs", 1.0), ("val/map50_95", 2.0), ("test/map50_95", weight),
    ]  # fmt: skip
    # Looking for the names has changed nothing of the training.
    plain = run(composed(tmp_path / "b", *SMALL))
    assert plain == 2.0
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("a", "b")
    ]
    assert torch.equal(states[0]["w"], states[1]["w"])


def test_one_objective_is_a_number(tmp_path: Path):
    assert run(composed(tmp_path, *SMALL, "objectives=[macs]")) == 1.0


@pytest.mark.parametrize(
    ("name", "hint"), [("val/map5095", r"Did you mean val/map50_95"), ("zzz", r"Allowed: macs, ")]
)
def test_unknown_ones_are_refused_before_training(name: str, hint: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=rf"objectives: {name} is no metric of Line.*{hint}"):
        run(composed(tmp_path, *SMALL, f"objectives=[val/map50_95,{name}]"))
    assert not (tmp_path / "checkpoints").exists()


def test_what_was_never_logged_is_said_at_the_end(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"train/zzz was not logged .*known are macs, "):
        run(composed(tmp_path, *SMALL, "objectives=[train/zzz,macs]"))
    assert (tmp_path / RESULT).is_file()


def test_macs_are_those_of_the_cut_model_else_of_the_masked_one():
    masked = {"pruning/macs": 0.5, "val/acc": 0.25}
    assert objective_values(["macs"], masked, {}, 0.75) == {"macs": 0.75}
    assert objective_values(["val/acc", "macs"], masked, {}, None) == {"val/acc": 0.25, "macs": 0.5}
    assert objective_values(["macs"], {}, {}, None) == {"macs": 1.0}
    assert returned({"a": 1.0, "b": 2.0}) == (1.0, 2.0)
    assert returned({"a": 1.0}) == 1.0
