"""Runs with an installed `ultralytics`, in a process of its own: writes models of other kinds.

Usage: python write_others.py FOLDER. Each is written as NAME.pt and as NAME.state.pt.
"""

import sys
import warnings
from pathlib import Path

import torch
from ultralytics import RTDETR, YOLO

MODELS = (
    *("yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls", "yolov8n-p2", "yolov8n-p6"),
    *("yolov8n-ghost", "yolov8s-worldv2", "yolov3-tiny", "yolov5n", "yolov6n", "yolov9t"),
    *("yolov10n", "yolo11n", "yolo12n", "yolo26n", "yolo26n-seg", "rtdetr-l"),
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        try:
            model = (RTDETR if name.startswith("rtdetr") else YOLO)(f"{name}.yaml").model
        except (FileNotFoundError, ModuleNotFoundError) as error:  # of a later version
            print(f"{name}: {error}")
            continue
        torch.save({"epoch": -1, "model": model.half(), "ema": None}, folder / f"{name}.pt")
        torch.save(model.state_dict(), folder / f"{name}.state.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
