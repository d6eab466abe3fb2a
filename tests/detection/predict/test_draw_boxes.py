"""Pixels of what is drawn."""

import itertools

import numpy as np
import pytest

from lightning_prune.detection.predict.draw_boxes import class_colour, draw_boxes

GREY = np.full((240, 320, 3), 100, dtype=np.uint8)


def changed(drawn: np.ndarray, image: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((drawn != image).any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_the_line_follows_the_box_and_the_image_stays():
    before = GREY.copy()
    drawn = np.asarray(draw_boxes(GREY, [[50, 60, 150, 160]], [3], ["dog 0.90"]))
    assert np.array_equal(GREY, before)
    for row, column in ((60, 140), (159, 100), (100, 50), (100, 149)):
        assert tuple(drawn[row, column]) == class_colour(3)
    assert tuple(drawn[110, 100]) == (100, 100, 100)
    left, top, right, bottom = changed(drawn, GREY)
    assert (left, right, bottom) == (50, 149, 159)
    assert 35 < top < 60  # the text stands above


@pytest.mark.parametrize(
    "box", [[0, 0, 320, 240], [300, 0, 320, 9], [-50, -50, 400, 400], [319.6, 239.7, 320, 240]]
)
@pytest.mark.parametrize("text", ["dog 0.90", "one name " * 90, "", "two\nlines"])
def test_text_stays_inside(box: list[float], text: str):
    drawn = np.asarray(draw_boxes(GREY, [box], [0], [text]))
    assert drawn.shape == GREY.shape
    letters = ((drawn != class_colour(0)) & (drawn != 100)).any(axis=2)
    ground = (drawn == class_colour(0)).all(axis=2)
    assert ground.sum() > 40
    if text:
        rows, columns = np.nonzero(letters)
        assert len(rows) > 10
        # The ground of the text surrounds its letters on all sides.
        assert ground[rows.min() - 1, columns].any()
        assert ground[rows.max() + 1, columns].any()
        assert ground[rows, columns.min() - 1].any()
        assert ground[rows, columns.max() + 1].any()


def test_the_best_is_on_top():
    drawn = np.asarray(draw_boxes(GREY, [[40, 40, 90, 90]] * 2, [1, 2], ["best", "second"]))
    assert tuple(drawn[89, 60]) == class_colour(1)


def test_thickness_grows_with_the_image():
    def thickness(side: int) -> int:
        image = np.zeros((side, side, 3), dtype=np.uint8)
        quarter = side // 4
        drawn = np.asarray(draw_boxes(image, [[quarter] * 2 + [3 * quarter] * 2], [0], ["a"]))
        return int((drawn[side // 2, : side // 2] > 0).any(axis=1).sum())

    assert (thickness(64), thickness(640), thickness(2000)) == (1, 3, 8)


def test_neighbouring_classes_differ():
    colours = [np.array(class_colour(label)) for label in range(80)]
    for a, b in itertools.pairwise(colours):
        assert np.abs(a - b).sum() > 100
    assert len({tuple(colour) for colour in colours}) == 80
