"""A one-class detector trained elsewhere: an Ultralytics-style `.pt` and a data set in a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

from lightning_prune import DigitsDetectionDataModule
from lightning_prune.plan import PruningPlan
from tests.detection.network.foreign_pickle import save_foreign
from tests.detection.network.layout import recipe_state, ultralytics_layout
from tests.overrides import NO_COST, TINY_FOLDER, TINY_PRUNING, TINY_WARNINGS

pytestmark = pytest.mark.filterwarnings(*TINY_WARNINGS)


def write_folder(root: Path) -> Path:
    """Write real digits of one class as a data set in Ultralytics' layout."""
    data = DigitsDetectionDataModule(
        image_size=64, train_images=16, val_images=8, test_images=8, batch_size=1, classes=[3]
    )
    data.setup("fit")
    for split, loader in (("train", data.collection_dataloader()), ("val", data.val_dataloader())):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for place, (images, targets) in enumerate(loader):
            name = f"{place:03d}"
            picture = (images[0] * 255).round().to(torch.uint8)
            to_pil_image(picture).save(root / "images" / split / f"{name}.png")
            rows = [f"0 {' '.join(f'{v:.6f}' for v in box)}" for box in targets["box"].tolist()]
            (root / "labels" / split / f"{name}.txt").write_text("\n".join(rows) + "\n")
    yaml = "path: .\ntrain: images/train\nval: images/val\nnames: {0: three}\n"
    (root / "data.yaml").write_text(yaml)
    return root


@pytest.mark.slow
def test_one_class_from_a_foreign_file_to_the_end(cli: Callable[..., Any], tmp_path: Path):
    root = write_folder(tmp_path / "threes")
    state = recipe_state(ultralytics_layout("n", 1), 5, 1.0)
    weights = save_foreign(
        tmp_path / "best.pt",
        {"model": state, "ema": None},
        names={0: "three"},
        train_args={"imgsz": 64, "task": "detect"},
    )
    outcome = cli(
        "+pruning=sequential_activation",
        f"model.weights={weights}",
        "data=yolo_folder",
        f"data.root={root}",
        "data.mosaic=0.0",
        *TINY_PRUNING,
        *NO_COST,
        *(word for word in TINY_FOLDER if not word.startswith("dense_epochs")),
    )
    assert outcome.code == 0, outcome.err
    assert "pruning starts at once" in outcome.out
    assert outcome.out.index("the weights as they came: test/map50") < outcome.out.index("epoch 1/")

    report = json.loads((outcome.folder / "pruning_report.json").read_text())
    assert report["pruned"]["macs"] <= 0.5 * report["dense"]["macs"]
    # One class has no pair to separate: the background is the other one, so no layer falls back.
    assert {row["status"] for row in report["layers"]} == {"pruned"}
    assert all(row["knee"] is not None for row in report["layers"] if row["bound"] == "knee")

    last = torch.load(outcome.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["hyper_parameters"]["num_classes"] == 1
    assert "weights" not in last["hyper_parameters"]
    masker = next(v for k, v in last["callbacks"].items() if "ActivationMasker" in k)
    plan = PruningPlan(
        {d["group"]: d["keep"] for d in masker["decisions"]},
        {d["group"]: d["channels"] for d in masker["decisions"]},
    )
    assert {row["channels_after"] for row in report["layers"]} == set(plan.widths().values())
