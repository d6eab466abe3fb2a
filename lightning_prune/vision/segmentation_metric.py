"""Intersection over union of class maps, summed up batch by batch and over ranks."""

import warnings

import torch
from torch import Tensor
from torchmetrics import Metric


class SegmentationIoU(Metric):
    r"""Intersection over union of every class, over all pixels that count.

    .. math:: IoU_c = \frac{N_{cc}}{\sum_j N_{cj} + \sum_i N_{ic} - N_{cc}}

    with N (K, K) the number of pixels of true class i that were given class j, summed over all
    images; not the mean over images. The state is N in int64: batches, processes and parts merge
    without loss.

    Args:
        num_classes: K.
        ignore_index: Target of pixels that do not count.

    Source: M. Everingham et al., 2010, The Pascal Visual Object Classes (VOC) Challenge, IJCV.

    >>> metric = SegmentationIoU(3, 255)
    >>> metric.update(torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 255]]]))
    >>> found = metric.compute()
    >>> found["iou"], round(found["miou"].item(), 4), round(found["accuracy"].item(), 4)
    (tensor([0.5000, 0.5000,    nan]), 0.5, 0.6667)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add class maps.

        Args:
            predicted: (B, H, W) int64 in 0..K-1.
            target: (B, H, W) int64, classes in 0..K-1 or ``ignore_index``.
        """
        valid = target != self.ignore_index
        cell = target[valid] * self.num_classes + predicted[valid]
        counts = torch.bincount(cell, minlength=self.num_classes**2)
        self.confusion += counts.reshape(self.num_classes, self.num_classes)

    def compute(self) -> dict[str, Tensor]:
        """Return ``iou`` (K,), ``miou`` and pixel ``accuracy``, each in [0, 1].

        IoU is NaN for classes that are neither there nor predicted; ``miou`` is the mean over the
        others.

        Warns:
            UserWarning: no pixel counted; ``miou`` and ``accuracy`` are 0 then.
        """
        total, hits = self.confusion.sum(), self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        iou = torch.where(union > 0, hits / union.clamp_min(1), torch.nan)
        if total == 0:
            warnings.warn(
                "no pixel counted in the masks that were evaluated: mIoU is undefined and reported "
                "as 0",
                stacklevel=2,
            )
        mean = iou.nanmean().nan_to_num(0.0)
        return {"iou": iou, "miou": mean, "accuracy": hits.sum() / total.clamp_min(1)}
