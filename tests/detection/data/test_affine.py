import numpy as np
import pytest

from lightning_prune.detection.data.affine import View, affine_matrix, crop_boxes, warp


def rectangle_view(box: tuple[int, int, int, int], height: int = 90, width: int = 120) -> View:
    """A dark image with one bright rectangle."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return View(image, np.array([box], dtype=np.float64), np.array([3]))


def extent(image: np.ndarray) -> np.ndarray:
    """Measure the bright rectangle in whole pixels: those it covers by half or more."""
    rows, columns = np.nonzero(image[:, :, 0] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


def test_matrix_against_single_steps() -> None:
    matrix = affine_matrix((50.0, 40.0), 100, 30.0, 1.5, (5.0, -3.0), (0.1, -0.2))
    point = np.array([63.0, 21.0])
    sheared = point - [50, 40]
    sheared = np.array(
        [
            sheared[0] + np.tan(np.radians(5)) * sheared[1],
            np.tan(np.radians(-3)) * sheared[0] + sheared[1],
        ]
    )
    angle = np.radians(30)
    turned = np.array(
        [
            np.cos(angle) * sheared[0] - np.sin(angle) * sheared[1],
            np.sin(angle) * sheared[0] + np.cos(angle) * sheared[1],
        ]
    )
    expected = 1.5 * turned + 50 + np.array([10, -20])
    np.testing.assert_allclose(matrix[:, :2] @ point + matrix[:, 2], expected)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_match_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x1, y1 = rng.integers(20, 50, 2)
    view = rectangle_view((x1, y1, x1 + rng.integers(15, 40), y1 + rng.integers(15, 30)))
    matrix = affine_matrix(
        (60.0, 45.0), 96, zoom=rng.uniform(0.6, 1.4), shift=tuple(rng.uniform(-0.1, 0.1, 2))
    )
    seen = warp(view, matrix, 96)
    assert seen.labels.tolist() == [3]
    # half a pixel for the rounding of `extent`, the rest for the blur of the interpolation
    np.testing.assert_allclose(extent(seen.image), seen.boxes[0], atol=0.7)


@pytest.mark.parametrize("angle", [-80.0, -20.0, 15.0, 45.0])
def test_turned_box_is_the_hull_of_the_turned_rectangle(angle: float) -> None:
    view = rectangle_view((45, 35, 75, 55))
    seen = warp(view, affine_matrix((60.0, 45.0), 96, angle=angle), 96)
    np.testing.assert_allclose(extent(seen.image), seen.boxes[0], atol=1.5)


def test_identity_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    view = View(image, np.array([[1.0, 2.0, 30.0, 40.0]]), np.array([0]))
    seen = warp(view, affine_matrix((32.0, 32.0), 64), 64)
    np.testing.assert_array_equal(seen.image, image)
    np.testing.assert_array_equal(seen.boxes, view.boxes)


def test_no_boxes() -> None:
    view = View(np.zeros((8, 8, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
    seen = warp(view, affine_matrix((4.0, 4.0), 8, zoom=1.1), 8)
    assert seen.boxes.shape == (0, 4)


def test_crop_keeps_what_is_worth_it() -> None:
    boxes = np.array(
        [
            [10, 10, 30, 30],  # inside
            [-17, 10, 3, 30],  # 15 % visible
            [-19, 10, 1, 30],  # 5 % visible
            [98.5, 10, 118, 12],  # 1.5 pixels visible
            [120, 10, 130, 30],  # outside
        ],
        dtype=np.float64,
    )
    clipped, kept = crop_boxes(boxes, 100)
    assert kept.tolist() == [True, True, False, False, False]
    assert clipped.tolist() == [[10, 10, 30, 30], [0, 10, 3, 30]]
