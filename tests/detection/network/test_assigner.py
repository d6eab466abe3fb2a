import json

import numpy as np
import pytest
import torch

from lightning_prune.detection.network.assigner import Objects, assign
from lightning_prune.detection.network.head import BINS, anchor_points, flatten_maps
from lightning_prune.detection.network.iou import complete_iou

CASES = [
    "normal", "overlapping", "one_image_empty", "many", "tiny_boxes_lt_16px", "no_targets",
    "duplicate_boxes", "aligned_normal", "aligned_overlapping", "aligned_many",
]  # fmt: skip


def golden(golden_vectors, name):
    arrays = np.load(golden_vectors / "12_yolov8_loss.npz")
    maps = [torch.tensor(arrays[f"{name}|map{i}"]) for i in range(3)]
    targets = torch.tensor(arrays[f"{name}|targets_idx_cls_cxcywh_norm"])
    size = torch.tensor([128.0, 96.0])
    centre, half = targets[:, 2:4] * size, targets[:, 4:] * size / 2
    box = torch.cat((centre - half, centre + half), dim=1)
    return arrays, maps, Objects(targets[:, 0].long(), targets[:, 1].long(), box)


def predicted_boxes(maps):
    logits, classes = flatten_maps(maps)
    points, strides = anchor_points(maps, (8, 16, 32))
    distance = (logits.view(2, 4, BINS, -1).softmax(2) * torch.arange(16.0)[:, None]).sum(2)
    distance = distance.transpose(1, 2)
    boxes = torch.cat((points - distance[..., :2], points + distance[..., 2:]), -1)
    return classes, boxes * strides[:, None], points * strides[:, None]


@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_reference(golden_vectors, name):
    arrays, maps, objects = golden(golden_vectors, name)
    classes, boxes, points = predicted_boxes(maps)
    found = assign(objects, classes, boxes, points)
    scores = torch.zeros(2, boxes.shape[1], 4)
    scores[found.image, found.anchor, objects.label[found.target]] = found.score
    if name == "no_targets":
        assert found.score.numel() == 0
        return
    boxes_of_reference = torch.tensor(arrays[f"{name}|tal|pred_bboxes_xyxy_px"])
    torch.testing.assert_close(boxes, boxes_of_reference, rtol=1e-5, atol=1e-3)
    expected = torch.tensor(arrays[f"{name}|tal|target_scores"])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)
    cases = json.loads((golden_vectors / "12_yolov8_loss.json").read_text())["cases"]
    count = next(c for c in cases if c["name"] == name)["n_fg_with_positive_target_score"]
    assert int((found.score > 0).sum()) == count
    target_box = torch.tensor(arrays[f"{name}|target_bboxes_xyxy_px"])[found.image, found.anchor]
    torch.testing.assert_close(objects.box[found.target], target_box, rtol=1e-5, atol=1e-3)


def brute_force(objects, classes, boxes, points, top_k):
    """Follow the paper literally, one anchor and one object at a time."""
    chosen, overlaps, metrics = {}, {}, {}
    for m in range(len(objects.label)):
        image = int(objects.image[m])
        x1, y1, x2, y2 = objects.box[m].tolist()
        cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, 16), max(y2 - y1, 16)
        for a, (x, y) in enumerate(points.tolist()):
            if abs(x - cx) < w / 2 and abs(y - cy) < h / 2:
                u = max(complete_iou(objects.box[m], boxes[image, a]).item(), 0)
                s = classes[image, objects.label[m], a].sigmoid().item()
                overlaps[m, a], metrics[m, a] = u, s**0.5 * u**6
        best = sorted((a for (o, a) in metrics if o == m), key=lambda a: -metrics[m, a])[:top_k]
        for a in best:
            if metrics[m, a] > 0:
                chosen.setdefault((image, a), []).append(m)
    owner = {}
    for (image, a), claimants in chosen.items():
        if len(claimants) > 1:
            rivals = [m for m in range(len(objects.label)) if int(objects.image[m]) == image]
            rivals = [m for m in rivals if (m, a) in overlaps]
            claimants = [max(rivals, key=lambda m: (overlaps[m, a], -m))]
        owner[image, a] = claimants[0]
    result = {}
    for (image, a), m in owner.items():
        mine = [key for key, value in owner.items() if value == m]
        top_u = max(overlaps[m, k] for _, k in mine)
        top_t = max(metrics[m, k] for _, k in mine)
        result[image, a] = (m, metrics[m, a] * top_u / (top_t + 1e-9))
    return result


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_brute_force(seed):
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([torch.zeros(1, 1, s, s) for s in (8, 4, 2)], (8, 16, 32))
    points = points * strides[:, None]
    count = [0, 1, 4, 7, 9, 12][seed]
    centre = torch.rand(count, 2, generator=generator) * 64
    half = torch.rand(count, 2, generator=generator) * 16 + 2
    objects = Objects(
        torch.randint(0, 3, (count,), generator=generator),
        torch.randint(0, 2, (count,), generator=generator),
        torch.cat((centre - half, centre + half), 1),
    )
    size = torch.rand(3, 84, 2, generator=generator) * 20 + 2
    middle = points + torch.randn(3, 84, 2, generator=generator) * 4
    boxes = torch.cat((middle - size, middle + size), -1)
    classes = torch.randn(3, 2, 84, generator=generator)
    found = assign(objects, classes, boxes, points, top_k=5)
    expected = brute_force(objects, classes, boxes, points, top_k=5)
    ours = {
        (i, a): (m, pytest.approx(s, rel=1e-4, abs=1e-7))
        for i, a, m, s in zip(*(values.tolist() for values in found), strict=True)
    }
    assert expected == ours
