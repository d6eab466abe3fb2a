"""Every recipe that masks by a ratio, run on real digits: its phases fall where they should."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from lightning_prune import DetectionModule
from lightning_prune.cli.train import run
from lightning_prune.runs.configuration.config_folder import config_folder
from tests.overrides import TINY, TINY_RECIPES, TINY_WARNINGS

pytestmark = pytest.mark.filterwarnings(*TINY_WARNINGS)


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def logged(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def report(folder: Path) -> Any:
    return json.loads((folder / "pruning_report.json").read_text())


@pytest.mark.parametrize("name", ["bn_scale", "channel_and_slice"])
def test_regularize_mask_cut(name: str, tmp_path: Path):
    run(composed(f"+pruning={name}", f"output_dir={tmp_path}", *TINY, *TINY_RECIPES[name]))
    found = report(tmp_path)
    assert found["cut"]["epoch"] == 2  # one epoch dense, one masked
    assert found["pruned"]["macs"] < found["dense"]["macs"]
    pruned = [row for row in found["layers"] if row["status"] == "pruned"]
    assert pruned
    assert all(row["channels_after"] % 8 == 0 for row in pruned)
    assert logged(tmp_path, "pruning/ratio") == [0.0, 0.5, 0.5]
    # Regularized until the cut: the third epoch has no norms to tell of.
    assert len(logged(tmp_path, "regularize/mean_norm")) == 2
    assert (tmp_path / "checkpoints" / "dense.ckpt").is_file()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["macs"] == found["pruned"]["macs"] / found["dense"]["macs"]
    assert result["norm_drop"] is not None


def test_one_shot(tmp_path: Path):
    run(composed("+pruning=magnitude", f"output_dir={tmp_path}", *TINY, *TINY_RECIPES["magnitude"]))
    assert report(tmp_path)["cut"]["epoch"] == 1  # where the masks fell
    assert logged(tmp_path, "pruning/ratio") == [0.0, 0.5, 0.5]


def test_reset_alone(tmp_path: Path):
    words = ["+pruning=channel_reset", "model=yolov8_reset", *TINY_RECIPES["channel_reset"]]
    run(composed(*words, *TINY, f"output_dir={tmp_path}"))
    found = report(tmp_path)
    assert found["usage"]["epochs"] == [0, 1, 2]
    layers = found["usage"]["layers"]
    assert len(layers) == 57 + 8  # every Conv; each CSP block has one more than the published ones
    assert all(
        row["reset"] == [0, row["channels"][0], row["channels"][0]] for row in layers.values()
    )
    assert found["pruned"] == {
        "parameters": None, "macs": None, "metrics": {}, "latency_ms": None, "bytes": None,
    }  # fmt: skip
    assert "test/map50_95" in found["dense"]["metrics"]
    assert (
        logged(tmp_path, "usage/reset")
        == [0] + [sum(r["channels"][0] for r in layers.values())] * 2
    )
    assert (tmp_path / "figures" / "usage.png").is_file()
    model = DetectionModule.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert list(model.network.get_channel_usage_report()) == [
        f"backbone.{stage}.csp" for stage in ("p3", "p4", "p5")
    ]


def test_reset_before_another_recipe(tmp_path: Path):
    both = [*TINY_RECIPES["channel"], *TINY_RECIPES["channel_reset"]]
    run(composed("+pruning=[channel,channel_reset]", *TINY, *both, f"output_dir={tmp_path}"))
    found = report(tmp_path)
    assert found["cut"]["epoch"] == 2
    row = found["usage"]["layers"]["network.backbone.p5.csp.conv3.conv"]
    width = {layer["name"]: layer["channels_after"] for layer in found["layers"]}
    assert row["channels"][0] == 256
    assert row["channels"][-1] == width["network.backbone.p5.csp.conv3.conv"] < 256
    assert row["reset"][1:] == row["channels"][1:]  # what is masked is left alone


def test_epochs_follow_the_length_of_the_run():
    for dense, recovery, last in ((12, 12, 20), (100, 50, 136), (0, 3, 1), (5, 1, 5)):
        words = [f"dense_epochs={dense}", f"recovery_epochs={recovery}", "output_dir=x"]
        masker = composed("+pruning=channel", *words).pruning.masker
        assert (masker.start_epoch, masker.end_epoch) == (dense, last + 1)
    masker = composed("+pruning=magnitude", "dense_epochs=7").pruning.masker
    assert (masker.start_epoch, masker.end_epoch) == (7, 8)


@pytest.fixture(scope="module")
def regularized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regularization run of two epochs with every epoch's checkpoint."""
    folder = tmp_path_factory.mktemp("regularized")
    words = ["+experiment=regularization_strengths", *TINY, "dense_epochs=2", "recovery_epochs=0"]
    run(composed(*words, f"output_dir={folder}"))
    return folder


def test_a_regularization_run_keeps_every_epoch(regularized: Path):
    names = sorted(path.name for path in (regularized / "checkpoints").glob("*.ckpt"))
    assert names == ["best.ckpt", "epoch_000.ckpt", "epoch_001.ckpt", "last.ckpt"]
    assert len(logged(regularized, "regularize/mean_norm")) == 2
    assert not (regularized / "pruning_report.json").exists()


def test_hand_over_of_weights(regularized: Path, tmp_path: Path):
    path = regularized / "checkpoints" / "epoch_000.ckpt"
    words = [word for word in TINY if not word.startswith("dense_epochs")]
    words += [f"model.weights={path}", f"output_dir={tmp_path}", *TINY_RECIPES["channel"]]
    run(composed("+pruning=channel", *words, "trainer.max_epochs=2", "recovery_epochs=2"))
    assert report(tmp_path)["cut"]["epoch"] == 1  # masked in the first epoch
    # The dense model of this run is the one that was handed over.
    dense = torch.load(tmp_path / "checkpoints" / "dense.ckpt", weights_only=True)["state_dict"]
    given = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(dense[name], given[name]) for name in given)


def test_hand_over_with_the_optimizer(regularized: Path, tmp_path: Path):
    path = regularized / "checkpoints" / "epoch_000.ckpt"
    words = [*TINY, f"ckpt_path={path}", f"output_dir={tmp_path}", *TINY_RECIPES["channel"]]
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        run(composed("+pruning=channel", *words, "dense_epochs=1"))
    found = report(tmp_path)
    assert found["cut"] is not None
    assert found["cut"]["epoch"] == 2  # epoch 0 was the other run's
    assert len(logged(tmp_path, "pruning/ratio")) == 2
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    assert last["global_step"] == 6
    model = DetectionModule.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert sum(p.numel() for p in model.parameters()) == found["pruned"]["parameters"]
