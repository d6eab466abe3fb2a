"""Runs with an installed `ultralytics`, in a process of its own: trains, predicts, validates.

Usage: python train_and_predict.py COCO.safetensors CELLS PHOTOGRAPHS SIZE FOLDER. Writes coco.pt
with the COCO weights, tuned.pt (fine-tuned on CELLS from them, with other classes) and last.pt (as
it is in the middle of that training); for coco.pt on PHOTOGRAPHS and tuned.pt on CELLS also the
predictions of the validation split, NAME.predictions.pt, and their own figures, NAME.json.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from ultralytics import YOLO

if not hasattr(np, "trapz"):  # 8.2 is older than NumPy 2.4, which has the new name only
    np.trapz = np.trapezoid
QUIET = {"workers": 0, "device": "cpu", "plots": False, "verbose": False}


def from_coco(weights: Path, target: Path) -> None:
    model = YOLO("yolov8n.yaml").model
    state = load_file(weights)
    own = model.state_dict()
    if not set(own) <= set(state):
        state = {f"model.{name}": value for name, value in state.items()}
    model.load_state_dict({name: state[name].reshape(own[name].shape) for name in own})
    torch.save({"epoch": -1, "model": model.half(), "ema": None, "train_args": {}}, target)


def tune(start: Path, data: Path, size: int, folder: Path) -> None:
    model = YOLO(start)

    def keep(trainer: Any) -> None:
        if trainer.epoch == 0 and Path(trainer.last).is_file():
            shutil.copy(trainer.last, folder / "last.pt")

    model.add_callback("on_model_save", keep)
    model.train(
        data=str(data), epochs=4, imgsz=size, batch=8, nbs=8, amp=False, seed=0, optimizer="AdamW",
        lr0=1e-3, warmup_epochs=0, mosaic=0, project=str(folder), name="run", exist_ok=True,
        **QUIET,
    )  # fmt: skip
    shutil.copy(folder / "run/weights/last.pt", folder / "tuned.pt")


def predict(weights: Path, data: Path, size: int) -> None:
    model = YOLO(weights)
    found = {}
    for path in sorted((data.parent / "images/val").iterdir()):
        (result,) = model.predict(
            str(path), conf=0.001, iou=0.7, max_det=300, imgsz=size, rect=False, device="cpu",
            verbose=False,
        )  # fmt: skip
        found[path.name] = result.boxes.data.cpu()
    torch.save(found, weights.with_suffix(".predictions.pt"))
    box = YOLO(weights).val(data=str(data), imgsz=size, rect=False, batch=8, **QUIET).box
    weights.with_suffix(".json").write_text(json.dumps({"map50": box.map50, "map50_95": box.map}))


def main(coco: Path, cells: Path, photographs: Path, size: int, folder: Path) -> None:
    from_coco(coco, folder / "coco.pt")
    tune(folder / "coco.pt", cells, size, folder)
    predict(folder / "tuned.pt", cells, size)
    predict(folder / "coco.pt", photographs, size)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    *paths, side, target = sys.argv[1:]
    main(*map(Path, paths), int(side), Path(target))
