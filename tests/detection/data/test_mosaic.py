import numpy as np
import pytest

from lightning_prune.detection.data.affine import View
from lightning_prune.detection.data.mosaic import mosaic

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def coloured_views(rng: np.random.Generator, size: int) -> list[View]:
    """Four grey images, each with a rectangle of a colour of its own."""
    views = []
    for label, colour in enumerate(COLOURS):
        height, width = (size, int(rng.integers(40, size))) if label % 2 else (50, size)
        image = np.full((height, width, 3), 60, dtype=np.uint8)
        x1, y1 = (int(rng.integers(0, side - 12)) for side in (width, height))
        x2, y2 = int(rng.integers(x1 + 4, width)), int(rng.integers(y1 + 4, height))
        image[y1:y2, x1:x2] = colour
        views.append(View(image, np.array([[x1, y1, x2, y2]], float), np.array([label])))
    return views


@pytest.mark.parametrize("seed", range(25))
def test_boxes_match_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre = tuple(int(each) for each in rng.integers(32, 97, 2))
    result = mosaic(coloured_views(rng, 64), centre, 64)
    assert result.image.shape == (128, 128, 3)
    found = {}
    for label, colour in enumerate(COLOURS):
        rows, columns = np.nonzero((result.image == colour).all(axis=2))
        if len(rows):
            found[label] = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert dict(zip(result.labels.tolist(), result.boxes.tolist(), strict=True)) == found


def test_images_meet_at_the_centre() -> None:
    views = [
        View(np.full((64, 64, 3), value, np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
        for value in (1, 2, 3, 4)
    ]
    image = mosaic(views, (70, 50), 64).image[:, :, 0]
    assert (image[49, 69], image[49, 70], image[50, 69], image[50, 70]) == (1, 2, 3, 4)
    assert (image == 114).sum() == 128 * 128 - 64 * 50 - 58 * 50 - 64 * 64 - 58 * 64


def test_needs_four() -> None:
    with pytest.raises(ValueError, match="got 0 images"):
        mosaic([], (0, 0), 64)
