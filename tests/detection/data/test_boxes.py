import numpy as np

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.detection.data.boxes import check_boxes

Box = tuple[float, float, float, float]


def check(*boxes: tuple[int, Box]) -> tuple[np.ndarray, np.ndarray, bool, dict[Problem, int]]:
    findings = Findings()
    given = [(label, box, f"line {index}") for index, (label, box) in enumerate(boxes)]
    labels, array, complete = check_boxes(given, 3, findings)
    return labels, array, complete, {key: len(value) for key, value in findings.places.items()}


def test_good_boxes_pass_unchanged() -> None:
    boxes = [(0, (0.5, 0.5, 1.0, 1.0)), (2, (0.1, 0.2, 0.2, 0.1))]
    labels, array, complete, found = check(*boxes)
    assert labels.tolist() == [0, 2]
    assert array.tolist() == [list(box) for _, box in boxes]
    assert complete
    assert not found


def test_no_boxes() -> None:
    labels, array, complete, found = check()
    assert (labels.shape, array.shape, complete, found) == ((0,), (0, 4), True, {})
    assert labels.dtype == np.int64


def test_box_reaching_outside_is_clipped() -> None:
    _, array, complete, found = check((0, (0.9, 0.5, 0.4, 0.2)))
    np.testing.assert_allclose(array, [[0.85, 0.5, 0.3, 0.2]])
    assert complete
    assert found == {Problem.BOX_OUTSIDE: 1}


def test_rounding_is_no_problem() -> None:
    *_, found = check((0, (0.5, 0.5, 1.0000012, 1.0)))
    assert not found


def test_box_in_pixels_cannot_be_used() -> None:
    labels, _, complete, found = check((0, (320.0, 240.0, 100.0, 80.0)))
    assert (len(labels), complete, found) == (0, False, {Problem.BOX_OUTSIDE: 1})


def test_unusable_boxes_are_named() -> None:
    labels, _, complete, found = check(
        (3, (0.5, 0.5, 0.1, 0.1)),
        (-1, (0.5, 0.5, 0.1, 0.1)),
        (0, (0.5, 0.5, 0.0, 0.1)),
        (0, (0.5, float("nan"), 0.1, 0.1)),
        (1, (0.5, 0.5, 0.1, 0.1)),
    )
    assert labels.tolist() == [1]
    assert not complete
    assert found == {Problem.UNKNOWN_CLASS: 2, Problem.NO_AREA: 1, Problem.MALFORMED: 1}


def test_duplicates_are_taken_once() -> None:
    box = (0.5, 0.5, 0.1, 0.1)
    labels, _, complete, found = check((0, box), (1, box), (0, box))
    assert labels.tolist() == [0, 1]
    assert complete
    assert found == {Problem.DUPLICATE: 1}
