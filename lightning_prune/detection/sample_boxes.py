"""What a dense and a pruned detector find on the same few images, small enough for a page."""

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.graph.forward_pass import untouched

SIZE = 160
_QUALITY = 70
_MOST_BOXES = 30
# Images looked at for each one that is shown.
_SEARCHED = 8


def sample_boxes(
    dense: DetectorModule | None,
    pruned: DetectorModule,
    batches: Iterable[Any],
    names: Sequence[str],
    count: int = 6,
) -> list[dict[str, Any]]:
    """Return the detections of both models on images on which they find most.

    Args:
        dense: The dense model; None: there is none.
        pruned: The pruned one.
        batches: ``(images, targets)``, as the modules are validated with.
        names: Of the classes.
        count: Of images.

    Returns:
        Of each image ``width`` and ``height`` (at most 160 pixels), ``data`` (a WebP data URI),
        and ``dense`` (or None) and ``pruned``: ``box``, ``score`` and ``name`` of each object.
    """
    images = _first(batches, _SEARCHED * count)
    found = {"dense": None if dense is None else _detect(dense, images)}
    found["pruned"] = _detect(pruned, images)
    numbers = [sum(len(one[n]) for one in found.values() if one) for n in range(len(images))]
    best = sorted(range(len(images)), key=lambda n: -numbers[n])[:count]
    rows = []
    for index in sorted(best):
        image, scale = images[index], SIZE / max(images[index].shape[1:])
        row = _image(image, scale)
        for side, detections in found.items():
            boxes = None if detections is None else detections[index]
            row[side] = None if boxes is None else _objects(boxes, scale, names)
        rows.append(row)
    return rows


def _first(batches: Iterable[Any], count: int) -> list[Tensor]:
    chosen: list[Tensor] = []
    for images, targets in batches:
        with_objects = set(targets["image"].tolist())
        chosen += [image.cpu() for n, image in enumerate(images) if n in with_objects]
        if len(chosen) >= count:
            break
    return chosen[:count]


def _detect(module: DetectorModule, images: Sequence[Tensor]) -> list[Tensor]:
    weight = next(p for p in module.parameters() if p.is_floating_point())
    with untouched(module), torch.inference_mode():
        module.eval()
        return [module.detect(image[None].to(weight))[0].float().cpu() for image in images]


def _image(image: Tensor, scale: float) -> dict[str, Any]:
    pixels = (image[:3].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    shown = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    content = io.BytesIO()
    shown.resize(size, Image.Resampling.LANCZOS).save(content, "WEBP", quality=_QUALITY)
    data = base64.b64encode(content.getvalue()).decode()
    return {"width": size[0], "height": size[1], "data": f"data:image/webp;base64,{data}"}


def _objects(boxes: Tensor, scale: float, names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "box": [round(value * scale, 1) for value in box[:4]],
            "score": round(box[4], 4),
            "name": names[int(box[5])] if int(box[5]) < len(names) else f"class {int(box[5])}",
        }
        for box in boxes[:_MOST_BOXES].tolist()
    ]
