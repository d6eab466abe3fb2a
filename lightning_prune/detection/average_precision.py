"""Mean average precision of detections, as pycocotools computes it."""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_convert


class DetectionAveragePrecision(MeanAveragePrecision):
    """mAP at IoU 0.5 and over 0.5:0.05:0.95, at most 100 detections per image (COCO).

    The recall thresholds are given in float64: torchmetrics rounds its own to float32, which costs
    up to 1e-3 against pycocotools.

    Source: T.-Y. Lin et al., 2014, Microsoft COCO, arXiv 1405.0312.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("faster_coco_eval") is None:
            raise ModuleNotFoundError(
                "mAP needs faster_coco_eval: pip install 'lightning-prune[detection]', or [all]"
            )
        super().__init__(
            box_format="xyxy",
            iou_type="bbox",
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            backend="faster_coco_eval",
        )
        self.warn_on_many_detections = False

    def update_batch(
        self, detections: Sequence[Tensor], targets: Mapping[str, Tensor], shape: Sequence[int]
    ) -> None:
        """Add the detections of a batch.

        Args:
            detections: Per image (n, 6): x1, y1, x2, y2 in pixels, score, class.
            targets: ``image`` (M,), ``label`` (M,), ``box`` (M, 4) as centre x, centre y, width,
                height in [0, 1].
            shape: Shape of the images, (B, C, H, W).
        """
        size = targets["box"].new_tensor([shape[-1], shape[-2]], dtype=torch.float32).repeat(2)
        boxes = box_convert(targets["box"].float() * size, "cxcywh", "xyxy")
        owned = [targets["image"] == index for index in range(len(detections))]
        self.update(
            [
                {"boxes": found[:, :4], "scores": found[:, 4], "labels": found[:, 5].long()}
                for found in detections
            ],
            [{"boxes": boxes[mine], "labels": targets["label"][mine].long()} for mine in owned],
        )

    def summary(self) -> dict[str, Tensor]:
        """Return ``map50`` and ``map50_95`` in [0, 1]; 0, warned, where there was no object."""
        values = self.compute()
        result = {"map50": values["map_50"], "map50_95": values["map"]}
        if any(value < 0 for value in result.values()):
            warnings.warn(
                "no object in the data that were evaluated: mAP is undefined and reported as 0",
                stacklevel=2,
            )
            return {name: torch.zeros_like(value) for name, value in result.items()}
        return result
