"""What the package's own validator says of a network."""

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lightning_prune.detection.ultralytics.package import quiet, settings_of, their_module
from lightning_prune.detection.ultralytics.their_output import is_transformer

_VALIDATORS = {"detect": "models.yolo.detect", "segment": "models.yolo.segment"}
_CLASSES = {"detect": "DetectionValidator", "segment": "SegmentationValidator"}
_NAMES = {
    "metrics/mAP50(B)": "map50",
    "metrics/mAP50-95(B)": "map50_95",
    "metrics/mAP50(M)": "mask_map50",
    "metrics/mAP50-95(M)": "mask_map50_95",
}


def their_figures(
    network: nn.Module,
    data: str | Path,
    image_size: int,
    split: str = "val",
    batch_size: int = 8,
    workers: int = 0,
    **settings: Any,
) -> dict[str, float]:
    """Validate a copy of a network with the package's own validator.

    Args:
        network: A network of theirs, dense or cut; it is left as it was.
        data: The ``data.yaml``.
        image_size: Side of the images in pixels.
        split: One of train, val and test.
        batch_size: Images a batch.
        workers: Of the loader.
        settings: Others of theirs, as ``rect`` or ``iou``.

    Returns:
        ``map50`` and ``map50_95`` of boxes, and ``mask_map50`` and ``mask_map50_95`` where the
        network segments.
    """
    task = str(network.task)
    kind = their_module(_VALIDATORS[task])
    name = _CLASSES[task]
    if is_transformer(network):
        kind, name = their_module("models.rtdetr"), "RTDETRValidator"
    _names_of_numpy()
    device = next(network.parameters()).device
    with quiet(), tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        arguments = settings_of(
            task, mode="val", data=str(data), imgsz=image_size, split=split, batch=batch_size,
            workers=workers, device=str(device), plots=False, save_json=False, verbose=False,
            half=False, **settings,
        )  # fmt: skip
        arguments.half = False
        validator = getattr(kind, name)(save_dir=Path(folder), args=vars(arguments))
        found: Mapping[str, float] = validator(model=copy.deepcopy(network).float().eval())
    return {own: float(found[key]) for key, own in _NAMES.items() if key in found}


def _names_of_numpy() -> None:
    """Add the name that NumPy 2.4 took away, for older versions."""
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # type: ignore[attr-defined]
