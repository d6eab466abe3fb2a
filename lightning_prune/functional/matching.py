"""Objects and what a detector says of them: matches, and cells of a feature map."""

import torch
from torch import Tensor


def match_objects(
    pred_boxes: Tensor, pred_labels: Tensor, gt_boxes: Tensor, gt_labels: Tensor, iou: float = 0.5
) -> Tensor:
    """Find for every object the best prediction of its class.

    One prediction may serve several objects.

    Args:
        pred_boxes: (N, 4) predicted boxes x1, y1, x2, y2, in the unit of ``gt_boxes``.
        pred_labels: (N,) predicted classes.
        gt_boxes: (M, 4) boxes of the objects.
        gt_labels: (M,) their classes.
        iou: A match overlaps by strictly more than this intersection over union, in [0, 1).

    Returns:
        (M,) int64, index of the prediction of the largest overlap (the first one on ties), -1
        where there is none.

    Raises:
        ValueError: If the shapes disagree or ``iou`` is outside [0, 1).

    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]])
    >>> objects = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 5.0]])
    >>> match_objects(boxes, torch.tensor([1, 1]), objects, torch.tensor([1, 2]))
    tensor([ 1, -1])
    """
    if not 0 <= iou < 1:
        raise ValueError(f"iou={iou} is outside [0, 1): pass the overlap a match must exceed")
    for name, boxes, labels in (("pred", pred_boxes, pred_labels), ("gt", gt_boxes, gt_labels)):
        if boxes.shape != (labels.numel(), 4) or labels.dim() != 1:
            raise ValueError(
                f"{name}_boxes {tuple(boxes.shape)} and {name}_labels {tuple(labels.shape)}: "
                "pass (n, 4) and (n,)"
            )
    if len(pred_boxes) == 0 or len(gt_boxes) == 0:
        return torch.full((len(gt_boxes),), -1, dtype=torch.int64, device=gt_boxes.device)
    overlap = _box_iou(gt_boxes.double(), pred_boxes.double())  # (M, N)
    overlap = torch.where(gt_labels[:, None] == pred_labels, overlap, 0.0)
    best = overlap.argmax(dim=1)
    return torch.where(overlap.gather(1, best[:, None])[:, 0] > iou, best, -1)


def cell_of(x: Tensor, y: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    r"""Return the cell of a feature map in which a point lies.

    .. math:: row = \lfloor y H \rfloor, \quad column = \lfloor x W \rfloor

    which is the centre over the stride of its axis, clamped into the map.

    Args:
        x: (M,) positions in [0, 1] of the image width.
        y: (M,) positions in [0, 1] of the image height.
        width: Columns W of the feature map.
        height: Rows H of the feature map.

    Returns:
        Row and column, (M,) int64 each.

    Raises:
        ValueError: If the feature map is empty.

    >>> cell_of(torch.tensor([0.5, 1.0]), torch.tensor([0.24, 0.0]), width=20, height=10)
    (tensor([2, 0]), tensor([10, 19]))
    """
    if width < 1 or height < 1:
        raise ValueError(f"a feature map of {width} by {height} cells has no cell to read")
    row = (y.double() * height).floor().long().clamp(0, height - 1)
    column = (x.double() * width).floor().long().clamp(0, width - 1)
    return row, column


def _box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the (len(a), len(b)) intersections over unions; 0 where both boxes are empty."""
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clamp(min=0).prod(dim=1) for box in (a, b))
    union = area_a[:, None] + area_b - intersection
    return torch.where(union > 0, intersection / union, 0.0)
