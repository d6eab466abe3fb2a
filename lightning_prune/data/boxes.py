"""Check the boxes of one picture."""

from collections.abc import Sequence

import numpy as np

from lightning_prune.data.checks import Findings, Problem

ROUNDING = 1e-3  # fraction of the picture by which rounded labels may stick out unnoticed


def check_boxes(
    boxes: Sequence[tuple[int, tuple[float, float, float, float], str]],
    num_classes: int,
    findings: Findings,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Check the boxes of one picture and put them into arrays.

    Boxes that reach outside the picture are noted and clipped; a box given twice is taken once.

    Args:
        boxes: for each object its class, (cx, cy, w, h) normalised, and where it stands.
        num_classes: number of classes K.
        findings: takes the problems.

    Returns:
        labels (M,) int64, boxes (M, 4) float64, and whether every object could be used. Where not,
        the picture should be left out: an object without its box teaches that it is background.
    """
    complete = True
    seen: dict[tuple[int, tuple[float, ...]], None] = {}
    for label, box, place in boxes:
        if not 0 <= label < num_classes:
            findings.add(
                Problem.UNKNOWN_CLASS, f"{place}: class {label}, 0-{num_classes - 1} known"
            )
            complete = False
            continue
        if not np.isfinite(box).all():
            findings.add(Problem.MALFORMED, f"{place}: {_show(box)} is not finite")
            complete = False
            continue
        if box[2] <= 0 or box[3] <= 0:
            findings.add(Problem.NO_AREA, f"{place}: {_show(box)}")
            complete = False
            continue
        clipped = _clip(box, place, findings)
        if clipped is None:
            complete = False
        elif (label, clipped) in seen:
            findings.add(Problem.DUPLICATE, place)
        else:
            seen[label, clipped] = None
    labels = np.array([label for label, _ in seen], dtype=np.int64)
    array = np.array([box for _, box in seen], dtype=np.float64).reshape(-1, 4)
    return labels, array, complete


def _clip(
    box: tuple[float, float, float, float], place: str, findings: Findings
) -> tuple[float, ...] | None:
    cx, cy, width, height = box
    edges = np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
    if edges.min() >= -ROUNDING and edges.max() <= 1 + ROUNDING:
        return box
    findings.add(Problem.BOX_OUTSIDE, f"{place}: cx, cy, w, h = {_show(box)}")
    x1, y1, x2, y2 = edges.clip(0, 1).tolist()
    if x2 <= x1 or y2 <= y1:
        return None
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _show(box: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in box)
