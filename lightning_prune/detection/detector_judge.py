"""Judges the files of a detector by boxes, scores and mAP."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.detection.average_precision import DetectionAveragePrecision
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.network.postprocess import clip_boxes, non_maximum_suppression
from lightning_prune.export.bundle.gate import Gate, Run
from lightning_prune.export.bundle.output_judge import OutputJudge
from lightning_prune.surgery.compare import eval_outputs

MAP_LOSS = 0.02
AGREEMENT_LOSS = 0.25
PRUNED_LOSS = 0.1
_PIXELS = 100
"""Of boxes, for each unit of tolerance of scores: 0.1 pixels at 0.001."""


class DetectorJudge(OutputJudge):
    """See ``Judge``: on files in 8 bits decides mAP50-95, or agreement where nothing is labelled.

    Agreement is mAP50-95 of a file's detections, with those of the checkpoint for objects.

    Args:
        module: The checkpoint's detector, on the CPU; it is left as it was.
        images: Batches (B, C, H, W) in [0, 1].
        targets: Of each batch, as ``DetectorModule`` has them; None: agreement decides.
        data: What they are, in words.
        tolerance: Largest difference of scores of a file in 32 bits, and a hundredth of that of
            boxes in pixels; None: 0.001.
        accept_loss: What a file in 8 bits may lose; None: .02 of mAP50-95, .25 of the agreement.
        dense: The network before it was pruned: files are to agree with it, at most .1 less than
            the checkpoint does.
    """

    def __init__(
        self,
        module: DetectorModule,
        images: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        data: str = "images",
        tolerance: float | None = None,
        accept_loss: float | None = None,
        dense: DetectorModule | None = None,
    ):
        super().__init__(module, images, None, data, tolerance, accept_loss)
        self.module = module
        self.shapes = [one.shape for one in images]
        self.targets = targets
        self.wanted = self.expected if dense is None else [eval_outputs(dense, x) for x in images]
        self.is_pruned = dense is not None
        self._reference: dict[str, float] | None = None

    def exact(self, run: Run) -> Gate:
        """Judge by the largest differences of boxes, in pixels, and of scores."""
        boxes = scores = 0.0
        answers = self.answers(run)
        for wanted, given in zip(self.expected, answers, strict=True):
            one, other = (self.module.predictions_of(tuple(both)) for both in (wanted, given))
            if one.shape != other.shape:
                raise ValueError(f"the file gives {tuple(other.shape)}, not {tuple(one.shape)}")
            apart = (one - other).abs().nan_to_num(torch.inf)
            boxes = max(boxes, float(apart[:, :4].max()))
            scores = max(scores, float(apart[:, 4:].max()))
        values = {"boxes": boxes, "scores": scores}
        if self.targets is not None:  # nothing depends on it here, but people read it
            values |= self.metric([tuple(one) for one in answers])
        limits = {"boxes": _PIXELS * self.tolerance, "scores": self.tolerance}
        return Gate("difference", values, {}, limits, self.images, self.data)

    def close(self, run: Run) -> Gate:
        """Judge by mAP50-95, or by agreement with the checkpoint."""
        found = [tuple(one) for one in self.answers(run)]
        if self.targets is None:
            return self._agreement(found)
        allowed = MAP_LOSS if self.accept_loss is None else self.accept_loss
        if self._reference is None:
            self._reference = self.metric([tuple(one) for one in self.expected])
        limits = {"map50_95": self._reference["map50_95"] - allowed}
        return Gate("metric", self.metric(found), self._reference, limits, self.images, self.data)

    def _agreement(self, found: list[Any]) -> Gate:
        self._check_sure()
        wanted = [*map(tuple, self.wanted)]
        values = {"agreement": self.module.agreement(found, wanted)}
        reference, allowed = {}, AGREEMENT_LOSS
        if self.is_pruned:
            checkpoint = self.module.agreement([*map(tuple, self.expected)], wanted)
            reference, allowed = {"agreement": checkpoint}, PRUNED_LOSS
        allowed = allowed if self.accept_loss is None else self.accept_loss
        limits = {"agreement": reference.get("agreement", 1.0) - allowed}
        return Gate("metric", values, reference, limits, self.images, self.data)

    def _check_sure(self) -> None:
        """Refuse to judge where the checkpoint finds nothing that a file could agree with."""
        sure = float(self.module.hparams["object_confidence"])
        scores = [self.module.predictions_of(tuple(one))[:, 4:].max() for one in self.wanted]
        if max(map(float, scores)) <= sure:
            raise ValueError(
                f"the network is sure of nothing ({sure:g}) on the {self.images} {self.data}, "
                "so that nothing says what 8 bits cost: give images like those that it knows, or "
                "labelled ones (--data)"
            )

    def metric(self, outputs: Sequence[Any]) -> dict[str, float]:
        """Return mAP of what was given for each batch, as validation scores it."""
        assert self.targets is not None
        metric = DetectionAveragePrecision()
        hparams: Any = self.module.hparams
        for one, targets, shape in zip(outputs, self.targets, self.shapes, strict=True):
            rows = non_maximum_suppression(
                self.module.predictions_of(one), hparams["confidence"],
                self.module.suppression_iou, hparams["max_detections"], True,
            )  # fmt: skip
            clipped = [clip_boxes(each, shape[-2], shape[-1]) for each in rows]
            metric.update_batch(clipped, targets, shape)
        return {name: float(value) for name, value in metric.summary().items()}
