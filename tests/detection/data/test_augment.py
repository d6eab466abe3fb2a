import colorsys
from typing import Any

import numpy as np
import pytest
import torch

from lightning_prune.detection.data.affine import View
from lightning_prune.detection.data.augment import Augmentation, augment, vary_colour


def load(index: int) -> View:
    """Image i: 64 wide, 48 high, a white rectangle on black."""
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[10:30, 20 : 44 + index] = 255
    return View(image, np.array([[20, 10, 44 + index, 30]], dtype=float), np.array([index]))


def make(settings: Augmentation, seed: int = 0, **options: Any) -> tuple[torch.Tensor, Any, Any]:
    return augment(load, 0, 4, 64, settings, np.random.default_rng(seed), **options)


def bright_extent(image: torch.Tensor) -> list[int]:
    rows, columns = np.nonzero(image[0].numpy() > 180)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_no_augmentation_is_the_letterbox() -> None:
    image, boxes, labels = make(Augmentation())
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.uint8
    assert boxes.tolist() == [[20, 18, 44, 38]]
    assert labels.tolist() == [0]
    assert (image[:, :8] == 114).all()
    assert bright_extent(image) == [20, 18, 44, 38]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Augmentation(fliplr=1.0), [20, 18, 44, 38]),
        (Augmentation(flipud=1.0), [20, 26, 44, 46]),
        (Augmentation(fliplr=1.0, flipud=1.0), [20, 26, 44, 46]),
    ],
)
def test_flips(settings: Augmentation, expected: list[float]) -> None:
    image, boxes, _ = make(settings)
    assert boxes.tolist() == [expected]
    assert bright_extent(image) == expected


@pytest.mark.parametrize("seed", range(12))
def test_view_boxes_match_the_pixels(seed: int) -> None:
    settings = Augmentation(translate=0.2, scale=0.4, fliplr=0.5, flipud=0.5)
    image, boxes, _ = make(settings, seed)
    np.testing.assert_allclose(boxes[0], bright_extent(image), atol=1.0)


@pytest.mark.parametrize("seed", range(12))
def test_mosaic_boxes_cover_the_bright_pixels(seed: int) -> None:
    image, boxes, _ = make(Augmentation(mosaic=1.0, scale=0.3, fliplr=0.5), seed)
    bright = image[0].numpy() > 180
    covered = np.zeros_like(bright)
    for x1, y1, x2, y2 in boxes:
        covered[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
        # each box is filled with its rectangle
        assert bright[int(np.ceil(y1)) : int(y2), int(np.ceil(x1)) : int(x2)].mean() > 0.85
    # what is not covered are slivers of objects that were dropped
    assert (bright & ~covered).sum() <= 0.12 * max(1, bright.sum()) + 60


def test_mosaic_can_be_over() -> None:
    image, _, labels = make(Augmentation(mosaic=1.0), use_mosaic=False)
    plain, _, _ = make(Augmentation())
    assert torch.equal(image, plain)
    assert labels.tolist() == [0]


def test_same_generator_same_image() -> None:
    settings = Augmentation(1.0, 10.0, 0.1, 0.5, 2.0, 0.1, 0.7, 0.4, 0.5, 0.5)
    first, second, other = make(settings, 1), make(settings, 1), make(settings, 2)
    assert torch.equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_hue_turns_the_colour_circle() -> None:
    image = torch.tensor([200, 100, 50], dtype=torch.uint8).reshape(3, 1, 1)

    class Fixed:
        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            return np.array([1.0, 0.0, 0.0])

    turned = vary_colour(image, Augmentation(hsv_h=0.25), Fixed())  # type: ignore[arg-type]
    hue, saturation, value = colorsys.rgb_to_hsv(200 / 255, 100 / 255, 50 / 255)
    expected = np.array(colorsys.hsv_to_rgb(hue + 0.25, saturation, value)) * 255
    np.testing.assert_allclose(turned.flatten().numpy(), expected, atol=1.5)


def test_brightness_and_saturation_stay_within_their_range() -> None:
    image = torch.tensor([100, 50, 50], dtype=torch.uint8).reshape(3, 1, 1)
    values = [
        vary_colour(image, Augmentation(hsv_v=0.4), np.random.default_rng(seed)).flatten().tolist()
        for seed in range(60)
    ]
    reds = np.array(values)[:, 0]
    assert reds.min() >= 59
    assert reds.max() <= 141
    assert reds.max() - reds.min() > 50
    greys = vary_colour(image, Augmentation(hsv_s=1.0), np.random.default_rng(3))
    assert greys.float().std() != image.float().std()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"mosaic": 1.5},
            ValueError,
            r"mosaic=1.5: pass a number in \[0, 1\], a probability, 0 = off",
        ),
        ({"scale": -0.1}, ValueError, r"scale=-0.1: pass a number in \[0, 0.9\]"),
        ({"hsv_h": 0.6}, ValueError, r"hsv_h=0.6: pass a number in \[0, 0.5\]"),
        ({"fliplr": "often"}, ValueError, r"fliplr='often': pass a number in \[0, 1\]"),
        ({"degrees": float("nan")}, ValueError, "degrees=nan"),
    ],
)
def test_settings_are_checked(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Augmentation(**given)
