"""Complete intersection over union of boxes, element by element."""

import math

import torch
from torch import Tensor

EPS = 1e-7


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the CIoU of boxes pair by pair.

    .. math:: \mathrm{CIoU} = \mathrm{IoU} - \rho^2 / c^2 - \alpha v, \quad
        v = \frac{4}{\pi^2} (\arctan \frac{w_b}{h_b} - \arctan \frac{w_a}{h_a})^2, \quad
        \alpha = \frac{v}{1 - \mathrm{IoU} + v}

    with rho the distance of the centres and c the diagonal of the smallest enclosing box. No
    gradient flows through alpha.

    Args:
        a: (..., 4) boxes x1, y1, x2, y2 in any unit.
        b: (..., 4) boxes in the same unit.

    Returns:
        (...) values in (-1.5, 1].

    Source: Z. Zheng, P. Wang, W. Liu, J. Li, R. Ye, D. Ren, 2020, Distance-IoU Loss, AAAI,
    arXiv 1911.08287.

    >>> box = torch.tensor([0.0, 0.0, 2.0, 2.0])
    >>> round(complete_iou(box, box + torch.tensor([1.0, 0.0, 1.0, 0.0])).item(), 4)
    0.2564
    """
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = overlap.clamp(min=0).prod(-1)
    union = size_a.prod(-1) + size_b.prod(-1) - intersection + EPS
    iou = intersection / union

    enclosing = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = enclosing.square().sum(-1) + EPS
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(-1) / 4

    angle_a = torch.atan(size_a[..., 0] / (size_a[..., 1] + EPS))
    angle_b = torch.atan(size_b[..., 0] / (size_b[..., 1] + EPS))
    aspect = (4 / math.pi**2) * (angle_b - angle_a).square()
    with torch.no_grad():
        alpha = aspect / (aspect - iou + (1 + EPS))
    return iou - (centres / diagonal + alpha * aspect)
