"""Mean average precision whose images can be weighted, and the paired bootstrap built on it.

Detections are matched to objects image by image once; a resample of the images is then nothing
but a weight per image, so that a thousand resamples take seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    return inside / (areas[0][:, None] + areas[1][None] - inside)


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
