"""Inputs that are no squares, and batches of a fixed size."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.detection.predict.detect_images import Times, detect_images
from lightning_prune.detection.predict.options import PredictionOptions


class Finder:
    """Finds the white rectangle in each image, as a network would say it."""

    names, channels, free = ("white",), 3, True

    def __init__(self, size: tuple[int, int], batch: int | None = None):
        self.size, self.batch, self.seen = size, batch, []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        answers = []
        for image in images:
            rows, columns = (image.amin(0) > 0.9).nonzero(as_tuple=True)
            box = [0.0] * 4 + [0.0]
            if len(rows):
                ends = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                x1, y1, x2, y2 = ends.float().tolist()
                box = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.8]
            answers.append(torch.tensor(box)[:, None])
        return torch.stack(answers)

    def running(self) -> nullcontext[None]:
        return nullcontext()


def marked(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 32), (32, 256)])
@pytest.mark.parametrize("shape", [(400, 600), (600, 400), (97, 1003), (64, 64), (1003, 97)])
def test_a_rectangle_is_found_where_it_is(size: tuple[int, int], shape: tuple[int, int]):
    height, width = shape
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    times = Times()
    (boxes, scores, labels), = detect_images(
        Finder(size), [marked(height, width, box)], PredictionOptions(), times=times
    )  # fmt: skip
    pixel = max(height / size[0], width / size[1])  # of the input, in pixels of the image
    assert np.abs(boxes[0].numpy() - box).max() <= 1.5 * pixel
    assert (scores.tolist(), labels.tolist()) == ([pytest.approx(0.8)], [0])
    assert times.images == 1
    assert "in it" in str(times)


def test_a_fixed_batch_is_filled_up():
    finder = Finder((32, 32), batch=4)
    images = [marked(32, 32, (8, 8, 16, 16)), marked(32, 64, (16, 8, 32, 24))]
    found = detect_images(finder, images, PredictionOptions())
    assert finder.seen == [(4, 3, 32, 32)]
    assert found[0][0].tolist() == [[8, 8, 16, 16]]
    assert (found[1][0] - torch.tensor([[16.0, 8, 32, 24]])).abs().max() <= 2  # half the size
    assert len(found) == 2


def test_classes_are_chosen_before_the_number_is_cut():
    class Two(Finder):
        names = ("a", "b")

        def __call__(self, images: Tensor) -> Tensor:
            box = torch.tensor([[8.0, 8, 4, 4, 0.9, 0], [20, 20, 4, 4, 0, 0.4]])
            return box.T[None].repeat(len(images), 1, 1)

    options = PredictionOptions(classes=frozenset({1}), max_detections=1)
    ((_, scores, labels),) = detect_images(Two((32, 32)), [marked(32, 32, (0, 0, 1, 1))], options)
    assert (labels.tolist(), scores.tolist()) == ([1], [pytest.approx(0.4)])
