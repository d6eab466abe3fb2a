"""From images to detections, batch by batch."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_prune.detection.data.letterbox import PAD_VALUE, fit, letterbox
from lightning_prune.detection.network.postprocess import MAX_CANDIDATES, non_maximum_suppression
from lightning_prune.detection.predict.detector import Detector
from lightning_prune.detection.predict.options import PredictionOptions
from lightning_prune.detection.predict.placement import Placement

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (n, 4) in pixels of the image, scores (n,) and classes (n,), best first."""


@dataclass
class Times:
    """Seconds spent, and on how many images."""

    images: int = 0
    read: float = 0.0
    before: float = 0.0
    network: float = 0.0
    after: float = 0.0

    def __str__(self) -> str:
        count = max(self.images, 1)
        values = (self.read, self.before, self.network, self.after)
        parts = (1e3 * value / count for value in values)
        text = "{:.1f} ms to read, {:.1f} before the network, {:.1f} in it, {:.1f} after it each"
        return f"{text.format(*parts)}, {count / max(sum(values), 1e-9):.1f} images a second"


def detect_images(
    detector: Detector,
    images: Sequence[np.ndarray],
    options: PredictionOptions,
    size: tuple[int, int] | None = None,
    times: Times | None = None,
) -> list[Found]:
    """Return the detections on each image of a batch, inside ``detector.running()``.

    Args:
        detector: The network.
        images: uint8 (H, W, 3), RGB, of any sizes.
        options: What becomes a detection.
        size: Height and width of the network's input; None: the detector's own.
        times: Takes what it took.
    """
    start = time.perf_counter()
    height, width = size or detector.size
    placed = [placed_image(image, height, width, detector.channels) for image in images]
    batch = torch.stack([image for image, _ in placed]).float().div_(255.0)
    missing = (detector.batch or 0) - len(batch)
    if missing > 0:
        batch = torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])])
    ready = time.perf_counter()
    predictions = detector(batch)[: len(images)]
    if predictions.is_cuda:
        torch.cuda.synchronize()
    answered = time.perf_counter()
    kept = non_maximum_suppression(
        predictions, options.confidence, options.iou,
        options.max_detections if options.classes is None else MAX_CANDIDATES, options.multi_label,
    )  # fmt: skip
    found = [
        _original(rows.cpu(), placement, options)
        for rows, (_, placement) in zip(kept, placed, strict=True)
    ]
    if times is not None:
        times.images += len(images)
        times.before += ready - start
        times.network += answered - ready
        times.after += time.perf_counter() - answered
    return found


def in_batches(items: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Group items into lists of a size, the last one perhaps shorter.

    >>> [len(part) for part in in_batches([np.zeros(1)] * 5, 2)]
    [2, 2, 1]
    """
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _original(rows: Tensor, placement: Placement, options: PredictionOptions) -> Found:
    if options.classes is not None:
        wanted = torch.tensor(sorted(options.classes), dtype=rows.dtype)
        rows = rows[torch.isin(rows[:, 5], wanted)][: options.max_detections]
    boxes = placement.to_original(rows[:, :4], options.clip)
    return boxes, rows[:, 4].clone(), rows[:, 5].long()


def placed_image(
    image: np.ndarray, height: int, width: int, channels: int
) -> tuple[Tensor, Placement]:
    """Letterbox an image as in validation; return (C, height, width) uint8 and where it lies."""
    if channels == 1:
        grey = np.asarray(Image.fromarray(image).convert("L"))
        image = np.repeat(grey[:, :, None], 3, axis=2)
    if height == width:
        square = letterbox(image, height)
        array, left, top = np.asarray(square.image), square.left, square.top
        inside = (square.width, square.height)
    else:
        array, left, top, inside = _rectangle(image, height, width)
    tensor = torch.from_numpy(array).permute(2, 0, 1)[:channels].contiguous()
    return tensor, Placement(left, top, *inside, image.shape[1], image.shape[0])


def _rectangle(
    image: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, int, int, tuple[int, int]]:
    rows, columns = image.shape[:2]
    scale = min(height / rows, width / columns)
    scaled = fit(image, max(1, round(max(rows, columns) * scale)))[:height, :width]
    top, left = (height - scaled.shape[0]) // 2, (width - scaled.shape[1]) // 2
    array = np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)
    array[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return array, left, top, (scaled.shape[1], scaled.shape[0])
