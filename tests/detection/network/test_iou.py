import numpy as np
import torch

from lightning_prune.detection.network.iou import complete_iou


def test_reproduces_the_reference(golden_vectors):
    arrays = np.load(golden_vectors / "12_yolov8_blocks.npz")
    a, b = (torch.tensor(arrays[f"iou|box{i}_xyxy"]) for i in (1, 2))
    expected = torch.tensor(arrays["iou|CIoU"])
    torch.testing.assert_close(complete_iou(a, b), expected, rtol=1e-5, atol=1e-5)


def test_equal_boxes_give_one_and_far_ones_go_below_zero():
    box = torch.tensor([[3.0, 4.0, 8.0, 6.0]])
    torch.testing.assert_close(complete_iou(box, box), torch.ones(1))
    assert complete_iou(box, box + 1000) < -0.9


def test_is_invariant_to_scale_and_shift():
    a = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    b = torch.tensor([[1.0, 0.5, 6.0, 2.0]])
    torch.testing.assert_close(complete_iou(a, b), complete_iou(a * 8 + 64, b * 8 + 64))


def test_gradient_is_finite_for_degenerate_boxes():
    a = torch.tensor([[1.0, 1.0, 1.0, 1.0]], requires_grad=True)
    complete_iou(a, torch.tensor([[0.0, 0.0, 2.0, 0.0]])).sum().backward()
    assert a.grad.isfinite().all()
