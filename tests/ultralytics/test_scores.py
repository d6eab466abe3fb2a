"""Fine-tuned by an installed `ultralytics`: the same score on photographs, and the file prunes."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml

from lightning_prune.detection.average_precision import DetectionAveragePrecision
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from tests.cli.test_export_ultralytics import squares
from tests.conftest import REPOSITORY
from tests.overrides import FEW_LAYERS, NO_COST, TINY_PRUNING
from tests.ultralytics.installed import absent, run_script

pytestmark = [absent, pytest.mark.slow]
SIZE = 320
COUNTS = {"bccd": {"train": 48, "val": 24}, "coco_open": {"train": 1, "val": 27}}


def subset(source: Path, target: Path) -> Path:
    """Link the first images and labels of each split; return the folder."""
    for split, count in COUNTS[source.name].items():
        for path in islice(sorted((source / "images" / split).iterdir()), count):
            label = source / "labels" / split / f"{path.stem}.txt"
            for file, kind in ((path, "images"), (label, "labels")):
                place = target / kind / split / file.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(file)
    facts = yaml.safe_load((source / "data.yaml").read_text())
    (target / "data.yaml").write_text(yaml.safe_dump(facts | {"path": str(target)}))
    return target


@pytest.fixture(scope="module", params=["8.2.103", "8.4.190"])
def trained(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with what `train_and_predict.py` writes, and the data that it saw."""
    folder = tmp_path_factory.mktemp("trained")
    data = {}
    for name in COUNTS:
        source = subset(shared / "data" / name, folder / f"{name}_source")
        squares(source, folder / name)  # without loss: the packages resize differently
        data[name] = folder / name / "data.yaml"
    subset(shared / "data" / "bccd", folder / "cells")
    coco = shared / "data/yolov8n_coco/yolov8n_coco.safetensors"
    run_script(
        request.param, "train_and_predict.py", coco, data["bccd"], data["coco_open"], SIZE, folder,
        folder=folder,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(("weights", "name"), [("tuned", "bccd"), ("coco", "coco_open")])
def test_both_sets_of_predictions_score_alike(trained: Path, weights: str, name: str) -> None:
    data = YoloFolderDataModule(str(trained / name), image_size=SIZE, batch_size=1, num_workers=0)
    data.setup("validate")
    files = [record.path.name for record in data.dataset("val").source.records]  # type: ignore[attr-defined]
    module = DetectionModule(
        weights=str(trained / f"{weights}.pt"), names=data.names, object_confidence=0.001,
        image_size=SIZE,
    ).eval()  # fmt: skip
    theirs, ours = DetectionAveragePrecision(), DetectionAveragePrecision()
    found = torch.load(trained / f"{weights}.predictions.pt")
    for file, (images, targets) in zip(files, data.val_dataloader(), strict=True):
        theirs.update_batch([found[file]], targets, images.shape)
        with torch.no_grad():
            ours.update_batch(module.detect(images), targets, images.shape)
    scores = {"ours": ours.summary(), "theirs by our metric": theirs.summary()}
    scores["their own figures"] = json.loads((trained / f"{weights}.json").read_text())
    for whose, values in scores.items():
        print(f"{weights}: {whose}: " + ", ".join(f"{k} {float(v):.4f}" for k, v in values.items()))
    assert scores["ours"]["map50"] > 0.3
    for key, value in scores["ours"].items():
        assert float(value) == pytest.approx(float(scores["theirs by our metric"][key]), abs=2e-3)


@pytest.mark.parametrize("name", ["tuned", "last"])
def test_a_fine_tuned_file_is_read_with_its_own_classes(trained: Path, name: str) -> None:
    module = DetectionModule(weights=str(trained / f"{name}.pt"))
    assert module.hparams["names"] == ["RBC", "WBC", "Platelets"]
    assert (module.hparams["size"], module.hparams["image_size"]) == ("n", SIZE)
    assert module.pretrained


def test_the_line_of_the_readme_prunes_the_file(trained: Path, tmp_path: Path) -> None:
    words = [
        "+pruning=sequential_activation", f"model.weights={trained / 'tuned.pt'}",
        "data=yolo_folder", f"data.root={trained / 'cells'}", "data.image_size=64",
        "data.batch_size=8", "data.num_workers=0", "recovery_epochs=2", "trainer.accelerator=cpu",
        "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "callbacks.progress=null",
        *TINY_PRUNING, *FEW_LAYERS, *NO_COST, f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "run/pruning_report.json").read_text())
    assert report["pruned"]["macs"] < report["dense"]["macs"]
