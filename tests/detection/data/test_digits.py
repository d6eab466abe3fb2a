from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_prune.detection.data.digit_canvas import draw_canvas, handwriting, ink_of
from lightning_prune.detection.data.digits import DigitCanvases, DigitsDetectionDataModule

ALL = list(range(10))


def test_handwriting_is_disjoint_and_complete() -> None:
    splits = [handwriting(split) for split in ("train", "val", "test")]
    everything = sorted(image.tobytes() for images, _ in splits for image in images)
    expected = (load_digits().images / 16).astype(np.float32)
    assert everything == sorted(image.tobytes() for image in expected)
    sets = [{image.tobytes() for image in images} for images, _ in splits]
    assert len(set.union(*sets)) == sum(map(len, sets))
    for images, digits in splits:
        assert len(images) == len(digits)
        assert np.bincount(digits).min() > 30


def test_ink_fills_its_box() -> None:
    samples, _ = handwriting("test")
    for sample in samples[:60]:
        ink = ink_of(sample, 30)
        assert ink.min() >= 0
        assert ink.max() == 1
        edges = [ink[0], ink[-1], ink[:, 0], ink[:, -1]]
        assert all(edge.max() >= 0.4 for edge in edges)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_are_tight_around_the_ink(seed: int) -> None:
    samples, digits = handwriting("train")

    class Quiet:
        """The same decisions, but a black canvas, white ink and no noise."""

        def __init__(self) -> None:
            self.rng = np.random.default_rng(seed)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.rng, name)

        def standard_normal(self, shape: Any, dtype: Any) -> np.ndarray:
            return np.zeros(shape, dtype)

        def uniform(self, low: float, high: float, size: Any = None) -> Any:
            value = self.rng.uniform(low, high, size)
            if low == -30 or low == -60:  # slope and tint
                return value * 0
            return value

    canvas, labels, boxes = draw_canvas(samples, digits, 160, Quiet())  # type: ignore[arg-type]
    background = canvas[tuple(np.array(np.nonzero(_outside(boxes, 160)))[:, 0])].astype(int)
    ink = np.abs(canvas.astype(int) - background).max(axis=2)
    assert len(labels) == len(boxes) >= 1
    assert not ink[_outside(boxes, 160)].any()
    for cx, cy, w, h in boxes * 160:
        x1, y1, x2, y2 = (round(each) for each in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
        inside = ink[y1:y2, x1:x2]
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.max() >= 0.39 * 80 - 2


def _outside(boxes: np.ndarray, size: int) -> np.ndarray:
    outside = np.ones((size, size), dtype=bool)
    for cx, cy, w, h in boxes * size:
        outside[round(cy - h / 2) : round(cy + h / 2), round(cx - w / 2) : round(cx + w / 2)] = (
            False
        )
    return outside


def test_canvases_are_seeded_and_do_not_depend_on_their_number() -> None:
    few, many = (DigitCanvases("train", count, 64, 5, ALL) for count in (3, 6))
    np.testing.assert_array_equal(few.canvases, many.canvases[:3])
    np.testing.assert_array_equal(np.concatenate(few.boxes), np.concatenate(many.boxes[:3]))
    other_seed = DigitCanvases("train", 3, 64, 6, ALL)
    other_split = DigitCanvases("val", 3, 64, 5, ALL)
    for other in (other_seed, other_split):
        assert (few.canvases != other.canvases).mean() > 0.5


def test_boxes_lie_inside_and_do_not_overlap() -> None:
    source = DigitCanvases("train", 40, 160, 0, ALL)
    labels = np.concatenate(source.labels)
    assert set(labels) == set(range(10))
    assert min(map(len, source.boxes)) >= 1
    assert max(map(len, source.boxes)) <= 6
    boxes = np.concatenate(source.boxes) * 160
    assert boxes[:, 3].min() >= 16
    assert boxes[:, 3].max() <= 66
    for each in source.boxes:
        corners = np.concatenate([each[:, :2] - each[:, 2:] / 2, each[:, :2] + each[:, 2:] / 2], 1)
        assert corners.min() >= 0
        assert corners.max() <= 1 + 1e-12
        for i in range(len(corners)):
            for j in range(i):
                low = np.maximum(corners[i, :2], corners[j, :2])
                high = np.minimum(corners[i, 2:], corners[j, 2:])
                assert (high - low).min() <= 1e-12


def test_subset_of_classes() -> None:
    module = DigitsDetectionDataModule(
        64, train_images=12, val_images=3, test_images=3, classes=[7, 3]
    )
    assert (module.names, module.num_classes, module.image_size) == (["7", "3"], 2, 64)
    module.setup("fit")
    _, targets = next(iter(module.collection_dataloader()))
    assert set(targets["label"].tolist()) == {0, 1}


def test_one_class() -> None:
    module = DigitsDetectionDataModule(64, train_images=4, val_images=2, classes=[5])
    module.setup("fit")
    _, targets = next(iter(module.train_dataloader()))
    assert module.num_classes == 1
    assert targets["label"].unique().tolist() == [0]


def test_batches() -> None:
    module = DigitsDetectionDataModule(96, 20, 5, 7, batch_size=8)
    module.setup("fit")
    module.setup("test")
    for loader, count in [
        (module.train_dataloader(), 20),
        (module.collection_dataloader(), 20),
        (module.val_dataloader(), 5),
        (module.test_dataloader(), 7),
    ]:
        batches = list(loader)
        images = torch.cat([images for images, _ in batches])
        assert images.shape == (count, 3, 96, 96)
        assert images.dtype == torch.float32
        assert images.min() >= 0
        assert images.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "image_size=100: pass a multiple of 32 from 32 to 16384"),
        ({"train_images": 0}, "train_images=0: pass an integer of at least 1"),
        ({"classes": []}, "pass each digit of 0-9 once, and at least one"),
        ({"classes": [1, 1]}, "pass each digit of 0-9 once"),
        ({"classes": [1, 10]}, "pass each digit of 0-9 once"),
        ({"mosaic": 2}, r"mosaic=2: pass a number in \[0, 1\]"),
        ({"batch_size": 0}, "batch_size=0: pass an integer of at least 1"),
        ({"num_workers": -1}, r"num_workers=-1: pass an integer in \[0, 512\]"),
        ({"seed": -1}, "seed=-1: pass an integer of at least 0"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitsDetectionDataModule(**options)


def test_wrong_type() -> None:
    with pytest.raises(ValueError, match=r"batch_size=1\.5: pass an integer"):
        DigitsDetectionDataModule(batch_size=1.5)  # type: ignore[arg-type]
