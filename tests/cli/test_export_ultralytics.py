"""The installed `ultralytics` package validates an exported, cut detector as we do.

It runs in a process of its own, with its settings in a folder of the test.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_prune.cli.export import main
from lightning_prune.data.images import read_image
from lightning_prune.detection.data.letterbox import letterbox
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.predict.detect_images import detect_images
from lightning_prune.detection.predict.module_detector import detector_of, options_of
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from tests.cli.test_export import save

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ultralytics", "onnxruntime")),
    reason="needs the extras ultralytics and onnx",
)
SIZE = 320
VALIDATE = """
import json, sys
from ultralytics import YOLO
file, data, size, target = sys.argv[1:]
model = YOLO(file, task="detect")
found = model.val(data=data, imgsz=int(size), rect=False, workers=0, plots=False, device="cpu")
result = {"map50": found.box.map50, "map50_95": found.box.map, "names": list(model.names.values())}
json.dump(result, open(target, "w"))
"""

PREDICT = """
import json, sys
from ultralytics import YOLO
file, folder, target = sys.argv[1:]
found = YOLO(file).predict(folder, imgsz=320, device="cpu", verbose=False)
rows = {r.path.split("/")[-1]: r.boxes.data.tolist() for r in found}
json.dump({"rows": rows, "size": found[0].orig_shape}, open(target, "w"))
"""


def run_theirs(code: str, folder: Path, *words: str) -> Any:
    """Run code with `ultralytics` in a process of its own; return the JSON that it wrote."""
    result = folder / "result.json"
    done = subprocess.run(
        [sys.executable, "-c", code, *words, str(result)],
        cwd=folder, capture_output=True, text=True,
        env=os.environ | {"YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(result.read_text())


def cut_weakest(module: DetectionModule, channels: int) -> None:
    """Cut the weakest channels of each wide group, few enough to leave the detector useful."""
    groups = trace_groups(module, torch.zeros(1, 3, 64, 64))
    layers = dict(module.named_modules())
    keep = {}
    for name, group in groups.items():
        if group.channels >= 128:
            size = layers[name].weight.detach().flatten(1).norm(dim=1)
            keep[name] = size.topk(group.channels - channels).indices.sort()[0]
    assert len(keep) > 3
    cut_channels(module, groups, PruningPlan(keep, {name: groups[name].channels for name in keep}))


def squares(source: Path, target: Path) -> dict[str, Any]:
    """Copy the validation split as squares, without loss: the packages resize differently.

    Bilinear interpolation with antialiasing (ours) and without is 2.5 points of mAP apart when
    pictures of 640 pixels become 320.
    """
    facts = yaml.safe_load((source / "data.yaml").read_text())
    for path in sorted((source / "images/val").iterdir()):
        fitted = letterbox(np.array(Image.open(path).convert("RGB")), SIZE)
        boxes = np.loadtxt(source / "labels/val" / f"{path.stem}.txt", ndmin=2)
        scale = np.array([fitted.width, fitted.height] * 2)
        boxes[:, 1:] = (boxes[:, 1:] * scale + [fitted.left, fitted.top, 0, 0]) / SIZE
        for split in ("train", "val"):
            image = target / "images" / split / f"{path.stem}.png"
            label = target / "labels" / split / f"{path.stem}.txt"
            for file in (image, label):
                file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(fitted.image).save(image)
            np.savetxt(label, boxes, fmt=["%d"] + ["%.8f"] * 4)
    (target / "data.yaml").write_text(yaml.safe_dump(facts | {"path": str(target)}))
    return facts


def test_same_map_as_our_own_validation(tmp_path: Path, shared: Path):
    folder = tmp_path / "data"
    facts = squares(shared / "data/coco_open", folder)
    weights = shared / "data/yolov8n_coco/yolov8n_coco.safetensors"
    names = list(facts["names"].values())
    module = DetectionModule(weights=str(weights), image_size=SIZE, names=names)
    cut_weakest(module, channels=2)
    checkpoint = save(module, tmp_path / "cut.ckpt")
    main([str(checkpoint)])

    theirs = run_theirs(
        VALIDATE,
        tmp_path,
        str(checkpoint.with_suffix(".onnx")),
        str(folder / "data.yaml"),
        str(SIZE),
    )

    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    data = YoloFolderDataModule(str(folder), image_size=SIZE, batch_size=9, num_workers=0)
    (ours,) = trainer.validate(module, data, verbose=False)
    assert theirs["names"] == names
    assert ours["val/map50"] > 0.4
    assert theirs["map50"] == pytest.approx(ours["val/map50"], abs=0.005)
    assert theirs["map50_95"] == pytest.approx(ours["val/map50_95"], abs=0.005)


def test_photos_of_any_shape(tmp_path: Path, shared: Path):
    weights = shared / "data/yolov8n_coco/yolov8n_coco.safetensors"
    module = DetectionModule(weights=str(weights), image_size=SIZE)
    main([str(save(module, tmp_path / "dense.ckpt"))])
    folder = tmp_path / "photos"
    folder.mkdir()
    # Of the size of the input already: the packages resize differently. PNG: they decode alike.
    for path in sorted((shared / "data/coco_open/images/val").iterdir())[:6]:
        photo = Image.open(path).convert("RGB")
        photo.thumbnail((SIZE, SIZE))
        photo.save(folder / f"{path.stem}.png")
    detector, options = detector_of(module), options_of(module)
    for batch in ("", ", batch=4"):
        code = PREDICT.replace("verbose=False", f"verbose=False{batch}")
        rows = run_theirs(code, tmp_path, str(tmp_path / "dense.onnx"), str(folder))["rows"]
        assert len(rows) == 6
        for path in folder.iterdir():
            theirs = torch.tensor(rows[path.name]).reshape(-1, 6)
            image = read_image(path)
            # They pad to a rectangle or to a square, from version to version.
            sides = [math.ceil(side / 32) * 32 for side in image.shape[:2]]
            differences = []
            for size in (tuple(sides), (SIZE, SIZE)):
                with detector.running():
                    ((boxes, scores, labels),) = detect_images(detector, [image], options, size)
                ours = torch.cat([boxes, scores[:, None], labels[:, None]], dim=1)
                same = ours.shape == theirs.shape
                differences.append(float((ours - theirs).abs().max()) if same else math.inf)
            assert min(differences) < 0.05
