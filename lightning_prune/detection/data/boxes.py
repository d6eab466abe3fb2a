"""Check the boxes of one image."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from lightning_prune.data.checks import Findings, Problem

ROUNDING = 1e-3  # fraction of the image by which rounded labels may stick out unnoticed
Box = tuple[float, float, float, float]


def _fractions(box: Box) -> str:
    return "cx, cy, w, h = " + " ".join(f"{value:g}" for value in box)


def check_boxes(
    boxes: Sequence[tuple[int, Box, str]],
    num_classes: int,
    findings: Findings,
    slack: tuple[float, float] = (ROUNDING, ROUNDING),
    no_area: Problem = Problem.NO_AREA,
    show: Callable[[Box], str] = _fractions,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Check the boxes of one image and put them into arrays.

    Boxes that reach outside the image are noted and clipped; a box given twice is taken once.

    Args:
        boxes: For each object its class, (cx, cy, w, h) normalised, and where it stands.
        num_classes: Number of classes K.
        findings: Takes the problems.
        slack: Fractions of the image's width and height by which boxes may stick out unnoticed.
        no_area: What a box of width or height 0 is; where that is not fatal only the box is left
            out.
        show: Writes a box in the words of the data's format.

    Returns:
        labels (M,) int64, boxes (M, 4) float64, and whether every object could be used. Where not,
        the image should be left out: an object without its box teaches that it is background.
    """
    complete = True
    seen: dict[tuple[int, Box], None] = {}
    for label, box, place in boxes:
        problem = _problem(label, box, num_classes, no_area)
        if problem is not None:
            findings.add(problem, f"{place}: {_told(problem, label, num_classes, show(box))}")
            complete = complete and not problem.fatal
            continue
        clipped = _clip(box, slack)
        if clipped != box:
            findings.add(Problem.BOX_OUTSIDE, f"{place}: {show(box)}")
        if clipped is None:
            complete = False
        elif (label, clipped) in seen:
            findings.add(Problem.DUPLICATE, place)
        else:
            seen[label, clipped] = None
    labels = np.array([label for label, _ in seen], dtype=np.int64)
    array = np.array([box for _, box in seen], dtype=np.float64).reshape(-1, 4)
    return labels, array, complete


def _problem(label: int, box: Box, num_classes: int, no_area: Problem) -> Problem | None:
    if not 0 <= label < num_classes:
        return Problem.UNKNOWN_CLASS
    if not all(map(math.isfinite, box)):
        return Problem.MALFORMED
    if box[2] < 0 or box[3] < 0:
        return Problem.NEGATIVE_SIZE
    return no_area if box[2] == 0 or box[3] == 0 else None


def _told(problem: Problem, label: int, num_classes: int, box: str) -> str:
    if problem is Problem.UNKNOWN_CLASS:
        return f"class {label:.12g}, 0-{num_classes - 1} known"
    return f"{box} is not finite" if problem is Problem.MALFORMED else box


def _clip(box: Box, slack: tuple[float, float]) -> Box | None:
    cx, cy, width, height = box
    left, right, top, bottom = cx - width / 2, cx + width / 2, cy - height / 2, cy + height / 2
    across, down = slack
    if left >= -across and right <= 1 + across and top >= -down and bottom <= 1 + down:
        return box
    left, right, top, bottom = (min(max(edge, 0.0), 1.0) for edge in (left, right, top, bottom))
    if right <= left or bottom <= top:
        return None
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
