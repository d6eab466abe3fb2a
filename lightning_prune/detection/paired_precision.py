"""Mean average precision whose images can be weighted, and the paired bootstrap built on it.

Detections are matched to objects image by image once; a resample of the images is then nothing
but a weight per image, so that a thousand resamples take seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_convert

from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.graph.forward_pass import untouched

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
LARGEST = 100  # detections per image and class, as COCO counts

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matched:
    """Detections of one class in all images, best first.

    Attributes:
        image: (n,) index of the image.
        correct: (10, n) whether the detection is right at each IoU threshold.
        objects: (images,) number of objects of the class.
    """

    image: NDArray[np.int64]
    correct: NDArray[np.bool_]
    objects: NDArray[np.int64]


def overlaps(found: Floats, real: Floats) -> Floats:
    """Return the IoU of boxes (n, 4) and (m, 4), corners x1, y1, x2, y2: (n, m)."""
    low = np.maximum(found[:, None, :2], real[None, :, :2])
    high = np.minimum(found[:, None, 2:], real[None, :, 2:])
    inside = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (found, real)]
    shared: Floats = inside / (areas[0][:, None] + areas[1][None] - inside)
    return shared


def matched(found: Floats, real: Floats) -> NDArray[np.bool_]:
    """Return which detections of one image and class, best first, are right: (10, n).

    Each takes the free object that it overlaps most, if by at least the threshold.
    """
    correct = np.zeros((len(THRESHOLDS), len(found)), dtype=bool)
    if not len(found) or not len(real):
        return correct
    iou = overlaps(found, real)
    for row, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(real), dtype=bool)
        for index in range(len(found)):
            values = np.where(free, iou[index], -1.0)
            best = int(values.argmax())
            if values[best] >= min(threshold, 1 - 1e-10):
                correct[row, index], free[best] = True, False
    return correct


def match_all(
    detections: Sequence[Floats], objects: Sequence[Floats], classes: int
) -> list[Matched]:
    """Match all images.

    Args:
        detections: Per image (n, 6): x1, y1, x2, y2, score, class.
        objects: Per image (m, 5): x1, y1, x2, y2, class.
        classes: Number of classes.
    """
    result = []
    for label in range(classes):
        image, score, correct, counts = [], [], [], []
        for index, (found, real) in enumerate(zip(detections, objects, strict=True)):
            mine = found[found[:, 5] == label]
            mine = mine[np.argsort(-mine[:, 4], kind="stable")][:LARGEST]
            own = real[real[:, 4] == label, :4]
            image.append(np.full(len(mine), index))
            score.append(mine[:, 4])
            correct.append(matched(mine[:, :4], own))
            counts.append(len(own))
        order = np.argsort(-np.concatenate(score), kind="stable")
        result.append(
            Matched(
                np.concatenate(image)[order],
                np.concatenate(correct, axis=1)[:, order],
                np.array(counts),
            )
        )
    return result


def average_precision(found: Sequence[Matched], weights: Floats) -> tuple[float, float]:
    """Return mAP50 and mAP50-95 when every image counts ``weights[image]`` times."""
    values = []
    for one in found:
        total = float((one.objects * weights).sum())
        if total == 0:
            continue
        weight = weights[one.image]
        right = np.cumsum(one.correct * weight, axis=1)
        seen = np.maximum(np.cumsum(weight), 1e-12)
        recall, precision = right / total, right / seen
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        row = []
        for one_recall, one_envelope in zip(recall, envelope, strict=True):
            place = np.searchsorted(one_recall, RECALLS, side="left")
            inside = place < len(one_envelope)
            row.append(
                float(
                    np.where(
                        inside,
                        one_envelope[np.minimum(place, len(one_envelope) - 1)]
                        if len(one_envelope)
                        else 0.0,
                        0.0,
                    ).mean()
                )
            )
        values.append(row)
    if not values:
        return 0.0, 0.0
    table = np.array(values)
    return float(table[:, 0].mean()), float(table.mean())


def interval(
    ours: Sequence[Sequence[Matched]],
    theirs: Sequence[Sequence[Matched]],
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Bootstrap the difference in mAP50-95, averaged over seeds, over the same images.

    Args:
        ours: Per seed the matched detections of every class.
        theirs: The same for the other method.
        rounds: Number of resamples.
        seed: Of the resamples.

    Returns:
        The difference on all images, and its 2.5 and 97.5 percentile.

    Source: Efron, Tibshirani, 1993, An Introduction to the Bootstrap, chapter 13.
    """
    images = len(ours[0][0].objects)
    random = np.random.default_rng(seed)

    def difference(weights: Floats) -> float:
        pairs = zip(ours, theirs, strict=True)
        return float(
            np.mean(
                [
                    average_precision(a, weights)[1] - average_precision(b, weights)[1]
                    for a, b in pairs
                ]
            )
        )

    even = np.full(images, 1 / images)
    drawn = [difference(random.multinomial(images, even).astype(float)) for _ in range(rounds)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return difference(np.ones(images)), float(low), float(high)


def detector_difference(
    dense: DetectorModule,
    pruned: DetectorModule,
    batches: Iterable[Any],
    images: int = 256,
    rounds: int = 200,
) -> dict[str, Any] | None:
    """Return by how much the mAP50-95 of a pruned detector differs on the same images.

    Args:
        dense: The detector before.
        pruned: The detector after.
        batches: ``(images, targets)``, as the modules are tested with.
        images: How many images count at most.
        rounds: Number of resamples.

    Returns:
        ``difference`` (pruned less dense), ``interval_95``, ``images`` and ``rounds``; None without
        an image.
    """
    found: tuple[list[Floats], list[Floats]] = ([], [])
    objects: list[Floats] = []
    classes = 0
    for pictures, targets in batches:
        if len(objects) >= images:
            break
        size = targets["box"].new_tensor([pictures.shape[-1], pictures.shape[-2]]).repeat(2)
        boxes = box_convert(targets["box"].float() * size, "cxcywh", "xyxy")
        rows = torch.cat([boxes, targets["label"][:, None].float()], dim=1).double().cpu()
        image = targets["image"].cpu()
        objects += [rows[image == index].numpy() for index in range(len(pictures))]
        classes = max(classes, 1 + int(targets["label"].max()) if len(image) else 0)
        for module, rows_of in zip((dense, pruned), found, strict=True):
            rows_of += [each.double().cpu().numpy() for each in _scored(module, pictures)]
    if not objects:
        return None
    objects, seen = objects[:images], [rows[:images] for rows in found]
    before, after = (match_all(rows, objects, classes) for rows in seen)
    difference, low, high = interval([after], [before], rounds)
    return {
        "difference": difference,
        "interval_95": [low, high],
        "images": len(objects),
        "rounds": rounds,
    }


def _scored(module: DetectorModule, pictures: Tensor) -> list[Tensor]:
    weight = next(p for p in module.parameters() if p.is_floating_point())
    with untouched(module), torch.inference_mode():
        module.eval()
        return module.scored(pictures.to(weight))
