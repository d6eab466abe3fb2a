"""Four images around one random point, as one image."""

from collections.abc import Sequence

import numpy as np

from lightning_prune.detection.data.affine import View
from lightning_prune.detection.data.letterbox import PAD_VALUE


def mosaic(views: Sequence[View], centre: tuple[int, int], size: int) -> View:
    """Lay four images around `centre` on a canvas of twice `size`.

    Each image (at most `size` x `size`) touches `centre` with one corner: top left, top right,
    bottom left, bottom right. With the centre in [size / 2, 3 size / 2] parts of them fall off the
    canvas; boxes are clipped with them, and those left without area vanish.

    Args:
        views: Four images with their boxes in pixels.
        centre: x, y on the canvas, in pixels.
        size: Half the side of the canvas, in pixels.

    Source: A. Bochkovskiy, C.-Y. Wang, H.-Y. M. Liao, 2020, "YOLOv4: Optimal Speed and Accuracy of
        Object Detection", arXiv:2004.10934.
    """
    if len(views) != 4:
        raise ValueError(f"mosaic: got {len(views)} images: pass four")
    side = 2 * size
    canvas = np.full((side, side, 3), PAD_VALUE, dtype=np.uint8)
    boxes, labels = [], []
    for corner, view in enumerate(views):
        height, width = view.image.shape[:2]
        left = centre[0] - width if corner % 2 == 0 else centre[0]
        top = centre[1] - height if corner < 2 else centre[1]
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
        canvas[y1:y2, x1:x2] = view.image[y1 - top : y2 - top, x1 - left : x2 - left]
        placed = view.moved(canvas, left, top).boxes.clip(0, side)
        visible = (placed[:, 2:] > placed[:, :2]).all(axis=1)
        boxes.append(placed[visible])
        labels.append(view.labels[visible])
    return View(canvas, np.concatenate(boxes), np.concatenate(labels))
