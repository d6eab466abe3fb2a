"""Detections on images that a program holds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lightning_prune.detection.predict.detect_images import Found, detect_images
from lightning_prune.detection.predict.detections import Detections
from lightning_prune.detection.predict.detector import Detector
from lightning_prune.detection.predict.module_detector import detector_of, options_of
from lightning_prune.detection.predict.options import (
    PredictionOptions,
    check_image_size,
    class_numbers,
)
from lightning_prune.detection.predict.rgb import as_rgb, each_image


def predict_images(
    detector: Detector,
    images: Any,
    options: PredictionOptions,
    image_size: int | None = None,
    batch_size: int = 8,
) -> list[Detections]:
    """Return the detections on each image.

    Args:
        detector: The network.
        images: One image or many: paths, folders, arrays, tensors or PIL images; see ``as_rgb``.
        options: What becomes a detection.
        image_size: Side of the square to which images are letterboxed; None: the detector's own.
        batch_size: Number of images that the network sees at once.

    Raises:
        ValueError: an image or a number is not what it should be; an ``ImageError`` for a file
            that cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: pass at least 1")
    size = None if image_size is None else (check_image_size(image_size),) * 2
    size = input_size(detector, size)
    results: list[Detections] = []
    waiting: list[tuple[Path | None, np.ndarray]] = []
    with detector.running():

        def work() -> None:
            found = detect_images(detector, [array for _, array in waiting], options, size)
            for (path, array), one in zip(waiting, found, strict=True):
                results.append(make_detections(one, array, path, detector.names))
            waiting.clear()

        for image in each_image(images):
            path = Path(image) if isinstance(image, str | Path) else None
            waiting.append((path, as_rgb(image)))
            if len(waiting) >= (detector.batch or batch_size):
                work()
        if waiting:
            work()
    return results


def predict_with_module(
    module: nn.Module,
    images: Any,
    confidence: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    classes: Sequence[str | int] | None = None,
    image_size: int | None = None,
    batch_size: int = 8,
    multi_label: bool = False,
) -> list[Detections]:
    """Return the detections of a ``DetectionModule`` on each image; it is left as it was.

    Args:
        module: The detector.
        images: One image or many: paths, folders, PIL images, RGB arrays (H, W, 3) uint8, or
            tensors (3, H, W), uint8 or in [0, 1].
        confidence: Detections must be above it; None: ``object_confidence``.
        iou: Largest overlap of two boxes of a class; None: ``nms_iou``.
        max_detections: Largest number per image; None: that of the module.
        classes: Names or numbers of the classes that are wanted; None: all.
        image_size: Side of the square that the network sees; None: that of the module.
        batch_size: Number of images that the network sees at once.
        multi_label: Whether a box may have several classes, as in validation.

    Raises:
        ValueError: an argument is out of range, an image of another kind, or (``ImageError``) a
            file cannot be read.
    """
    detector, options = detector_of(module), options_of(module)
    options = replace(
        options,
        confidence=options.confidence if confidence is None else confidence,
        iou=options.iou if iou is None else iou,
        max_detections=options.max_detections if max_detections is None else max_detections,
        classes=class_numbers(classes, detector.names),
        multi_label=multi_label,
    )
    return predict_images(detector, images, options, image_size, batch_size)


def input_size(detector: Detector, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of the network's input.

    Raises:
        ValueError: the detector is for images of one size, and this is another.
    """
    if size is not None and size != detector.size and not detector.free:
        raise ValueError(
            f"image_size={size[0]}: the model takes images of {detector.size[0]} x "
            f"{detector.size[1]} only"
        )
    return size or detector.size


def make_detections(
    found: Found, image: np.ndarray, path: Path | None, names: Sequence[str]
) -> Detections:
    """Combine what was found on an image with what is known of it."""
    height, width = image.shape[:2]
    kept = image if path is None else None
    return Detections(*found, tuple(names), height, width, path, kept)
