import numpy as np
import pytest
import torch

from lightning_prune.detection import paired_precision
from lightning_prune.detection.average_precision import DetectionAveragePrecision


def photographs(count: int, seed: int):
    """Return objects (m, 5) and detections (n, 6): some near an object, some anywhere."""
    random = np.random.default_rng(seed)
    objects, detections = [], []
    for _ in range(count):
        low = random.uniform(0, 80, (random.integers(0, 8), 2))
        boxes = np.concatenate([low, low + random.uniform(8, 30, low.shape)], axis=1)
        label = random.integers(0, 3, (len(boxes), 1)).astype(float)
        objects.append(np.concatenate([boxes, label], axis=1))
        near = np.repeat(objects[-1], 2, axis=0)
        near[:, :4] += random.normal(0, 2, near[:, :4].shape)
        near[:, 2:4] = np.maximum(near[:, 2:4], near[:, :2] + 1)
        low = random.uniform(0, 80, (4, 2))
        stray = np.concatenate([low, low + 20, random.integers(0, 3, (4, 1))], axis=1)
        rows = np.concatenate([near, stray])
        score = random.uniform(0, 1, (len(rows), 1))
        detections.append(np.concatenate([rows[:, :4], score, rows[:, 4:]], axis=1))
    return objects, detections


def counted_by_coco(objects, detections) -> tuple[float, float]:
    metric = DetectionAveragePrecision()
    metric.update(
        [
            {
                "boxes": torch.tensor(rows[:, :4]),
                "scores": torch.tensor(rows[:, 4]),
                "labels": torch.tensor(rows[:, 5]).long(),
            }
            for rows in detections
        ],
        [
            {"boxes": torch.tensor(rows[:, :4]), "labels": torch.tensor(rows[:, 4]).long()}
            for rows in objects
        ],
    )
    found = metric.summary()
    return float(found["map50"]), float(found["map50_95"])


@pytest.mark.parametrize("seed", [0, 1])
def test_even_weights_give_what_coco_counts(seed: int) -> None:
    objects, detections = photographs(12, seed)
    found = paired_precision.match_all(detections, objects, 3)
    assert paired_precision.average_precision(found, np.ones(12)) == pytest.approx(
        counted_by_coco(objects, detections), abs=1e-7
    )


def test_a_weight_of_two_is_the_same_photograph_twice() -> None:
    objects, detections = photographs(6, 2)
    weights = np.array([2.0, 0, 1, 3, 1, 0])
    drawn = np.repeat(np.arange(6), weights.astype(int))
    twice = paired_precision.match_all(
        [detections[i] for i in drawn], [objects[i] for i in drawn], 3
    )
    found = paired_precision.match_all(detections, objects, 3)
    assert paired_precision.average_precision(found, weights) == pytest.approx(
        paired_precision.average_precision(twice, np.ones(len(drawn)))
    )


def test_interval_tells_a_worse_detector_and_none_where_there_is_no_difference() -> None:
    objects, detections = photographs(20, 3)
    real = paired_precision.match_all(detections, objects, 3)
    blurred = [rows + np.array([4.0, 4, 4, 4, 0, 0]) for rows in detections]
    worse = paired_precision.match_all(blurred, objects, 3)
    difference, low, high = paired_precision.interval([real], [worse], rounds=50)
    assert 0 < low < difference < high
    assert paired_precision.interval([real], [real], rounds=10) == (0.0, 0.0, 0.0)
