import json

import numpy as np
import pytest
import torch

from lightning_prune.detection.average_precision import DetectionAveragePrecision

KEYS = ["map_good", "map_noisy", "map_sparse", "map_perfect", "map_no_predictions"]
SIDE = 640


def fill(metric, arrays, key, images, batch):
    found = torch.tensor(arrays[f"{key}|pred_xyxy_score_cls_img"])
    truth = torch.tensor(arrays[f"{key}|gt_xyxy_cls_img"])
    for start in range(0, images, batch):
        range_ = range(start, min(start + batch, images))
        detections = [found[found[:, 6] == i][:, :6] for i in range_]
        mine = truth[(truth[:, 5] >= start) & (truth[:, 5] < start + batch)]
        centre, size = (mine[:, :2] + mine[:, 2:4]) / 2, mine[:, 2:4] - mine[:, :2]
        targets = {
            "image": mine[:, 5].long() - start,
            "label": mine[:, 4].long(),
            "box": torch.cat((centre, size), 1) / SIDE,
        }
        metric.update_batch(detections, targets, (len(detections), 3, SIDE, SIDE))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("batch", [12, 5])
def test_equals_pycocotools(golden_vectors, key, batch):
    cases = json.loads((golden_vectors / "13_nms_map.json").read_text())["map"]
    case = next(c for c in cases if c["key"] == key)
    metric = DetectionAveragePrecision()
    fill(metric, np.load(golden_vectors / "13_nms_map.npz"), key, case["n_images"], batch)
    values = metric.summary()
    stats = case.get("pycocotools_stats") or {"AP": 0.0, "AP50": 0.0}
    assert values["map50"].item() == pytest.approx(stats["AP50"], abs=1e-6)
    assert values["map50_95"].item() == pytest.approx(stats["AP"], abs=1e-6)


def test_no_object_is_said_and_counts_as_zero():
    metric = DetectionAveragePrecision()
    empty = {
        "image": torch.zeros(0).long(),
        "label": torch.zeros(0).long(),
        "box": torch.zeros(0, 4),
    }
    metric.update_batch([torch.tensor([[0.0, 0, 9, 9, 0.9, 0]])], empty, (1, 3, 64, 64))
    with pytest.warns(UserWarning, match="no object"):
        assert metric.summary()["map50"] == 0


def test_leaves_nothing_in_the_state_dict():
    assert not DetectionAveragePrecision().state_dict()
