"""A box goes into the input and comes back."""

import pytest
import torch

from lightning_prune.detection.predict.placement import Placement


@pytest.mark.parametrize("size", [(640, 427), (7, 3001), (32, 32)])
def test_back_and_forth(size: tuple[int, int]):
    width, height = size
    placement = Placement(5, 11, 30, 20, width, height)
    box = torch.tensor([[0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height]])
    scale = torch.tensor([30 / width, 20 / height]).repeat(2)
    inside = box * scale + torch.tensor([5, 11, 5, 11])
    torch.testing.assert_close(placement.to_original(inside), box)


def test_boxes_in_the_padding_end_at_the_border():
    placement = Placement(0, 8, 32, 16, 64, 32)
    boxes = torch.tensor([[-4.0, 0.0, 40.0, 32.0], [0.0, 0.0, 8.0, 4.0]])
    assert placement.to_original(boxes).tolist() == [[0, 0, 64, 32], [0, 0, 16, 0]]
    assert placement.to_original(boxes, clip=False)[0].tolist() == [-8, -16, 80, 48]
