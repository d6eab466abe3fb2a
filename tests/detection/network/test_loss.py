import json

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert, box_iou

from lightning_prune.detection.network.loss import DetectionLoss
from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.detection.network.postprocess import non_maximum_suppression
from tests.detection.network.test_assigner import CASES


def golden(golden_vectors, name):
    arrays = np.load(golden_vectors / "12_yolov8_loss.npz")
    maps = [torch.tensor(arrays[f"{name}|map{i}"], requires_grad=True) for i in range(3)]
    rows = torch.tensor(arrays[f"{name}|targets_idx_cls_cxcywh_norm"])
    return (
        arrays,
        maps,
        {"image": rows[:, 0].long(), "label": rows[:, 1].long(), "box": rows[:, 2:]},
    )


@pytest.mark.parametrize("name", CASES)
def test_reproduces_values_and_gradients(golden_vectors, name):
    arrays, maps, targets = golden(golden_vectors, name)
    cases = json.loads((golden_vectors / "12_yolov8_loss.json").read_text())["cases"]
    case = next(c for c in cases if c["name"] == name)
    parts = DetectionLoss()(maps, targets)
    assert parts.box.item() == pytest.approx(case["box"], rel=1e-4)
    assert parts.classes.item() == pytest.approx(case["cls"], rel=1e-4)
    assert parts.dfl.item() == pytest.approx(case["dfl"], rel=1e-4)
    assert parts.total.item() == pytest.approx(case["total_times_batch"], rel=1e-4)
    (parts.total / 2).backward()
    gradient = torch.cat([m.grad.flatten(2) for m in maps], dim=2)
    for ours, theirs in ((gradient[:, :64], "box"), (gradient[:, 64:], "cls")):
        expected = torch.tensor(arrays[f"{name}|grad_{theirs}_logits"])
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


def test_is_float32_inside_autocast(golden_vectors):
    _, maps, targets = golden(golden_vectors, "aligned_normal")
    outside = DetectionLoss()(maps, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = DetectionLoss()(maps, targets)
    assert inside.total.dtype == torch.float32
    assert torch.equal(outside.total, inside.total)


def test_half_precision_maps_train(golden_vectors):
    _, maps, targets = golden(golden_vectors, "aligned_normal")
    half = [m.detach().bfloat16().requires_grad_() for m in maps]
    parts = DetectionLoss()(half, targets)
    parts.total.backward()
    assert parts.total.item() == pytest.approx(
        DetectionLoss()(maps, targets).total.item(), rel=0.05
    )
    assert all(m.grad.dtype == torch.bfloat16 and m.grad.isfinite().all() for m in half)


def test_gains_scale_their_part_only(golden_vectors):
    _, maps, targets = golden(golden_vectors, "normal")
    plain, scaled = DetectionLoss()(maps, targets), DetectionLoss(15.0, 0.5, 0.0)(maps, targets)
    assert scaled.box.item() == pytest.approx(2 * plain.box.item())
    assert scaled.classes.item() == pytest.approx(plain.classes.item())
    assert scaled.dfl.item() == 0


def test_no_objects_reaches_every_parameter():
    # Distributed training needs a gradient for each parameter, on an empty batch too.
    network = YOLOv8("n", 2, widths=(4, 8, 8, 8, 8)).train()
    empty = {
        "image": torch.zeros(0, dtype=torch.int64),
        "label": torch.zeros(0, dtype=torch.int64),
        "box": torch.zeros(0, 4),
    }
    DetectionLoss()(network(torch.rand(2, 3, 64, 64)), empty).total.backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_overfits_one_image():
    torch.manual_seed(0)
    network = YOLOv8("n", 2, widths=(8, 16, 16, 16, 16)).train()
    image = torch.rand(2, 3, 64, 64)
    targets = {
        "image": torch.tensor([0, 1]),
        "label": torch.tensor([0, 1]),
        "box": torch.tensor([[0.5, 0.5, 0.5, 0.4], [0.3, 0.6, 0.4, 0.4]]),
    }
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(80):
        maps = network(image)
        loss = DetectionLoss()(maps, targets).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = non_maximum_suppression(network.head.decode(maps), 0.3)
    truth = box_convert(targets["box"] * 64, "cxcywh", "xyxy")
    for rows, box, label in zip(found, truth, targets["label"], strict=True):
        assert rows[0, 5] == label
        assert box_iou(rows[:1, :4], box[None]).item() > 0.8
