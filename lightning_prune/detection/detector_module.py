"""What detectors share as LightningModules: mAP, detections, objects and the optimizer."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from lightning_prune.detection.arguments import check_channels, check_targets
from lightning_prune.detection.average_precision import DetectionAveragePrecision
from lightning_prune.detection.distillation import (
    class_saliency,
    detection_agreement,
    detection_distillation_loss,
)
from lightning_prune.detection.map_distillation import map_distillation_loss, raw_maps
from lightning_prune.detection.network.postprocess import (
    clip_boxes,
    find_candidates,
    non_maximum_suppression,
)
from lightning_prune.functional.matching import match_objects
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.modules.optimizers import by_dimension, sgd_or_adamw
from lightning_prune.modules.scheduled_module import ScheduledModule

if TYPE_CHECKING:
    from lightning_prune.detection.predict.detections import Detections

Batch = tuple[Tensor, Mapping[str, Tensor]]


class DetectorModule(ScheduledModule):
    """Base of the detectors: validates, tests, predicts, and shows pruning where objects are.

    A batch is ``(images, targets)``: images (B, C, H, W) in [0, 1]; targets ``image`` (M,),
    ``label`` (M,), ``box`` (M, 4) as centre x, centre y, width, height in [0, 1].

    Subclasses have the hyper-parameters ``num_classes``, ``in_channels``, ``confidence``,
    ``nms_iou``, ``max_detections``, ``object_confidence``, ``optimizer``, ``lr``, ``momentum`` and
    ``weight_decay`` besides those of the schedule, and call ``super().__init__`` first.

    Attributes:
        sums_loss: Their loss is the sum over the images of a batch.
    """

    sums_loss = True

    def __init__(self) -> None:
        super().__init__()
        self.val_map = DetectionAveragePrecision()
        self.test_map = DetectionAveragePrecision()

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """Return (B, 4 + nc, A) in eval mode, anything that the loss takes in training.

        Eval mode gives boxes as centre x, centre y, width, height in pixels, then class
        probabilities.
        """

    @property
    def suppression_iou(self) -> float:
        """Overlap of two boxes of a class above which the weaker is dropped."""
        return float(self.hparams["nms_iou"])

    def log_losses(self, mean: Tensor, parts: Mapping[str, Tensor], batch_size: int) -> None:
        """Log the loss of an image as ``train/loss``, and its parts as ``train/NAME_loss``."""
        how: dict[str, Any] = {"on_epoch": True, "on_step": False, "batch_size": batch_size}
        self.log("train/loss", mean.detach(), prog_bar=True, **how)
        self.log_dict({f"train/{name}_loss": value for name, value in parts.items()}, **how)

    def setup(self, stage: str) -> None:
        """Compare the classes and channels of the data with those of the network.

        Raises:
            ValueError: the data have more classes than the network, or other channels.
        """
        data = getattr(self.trainer, "datamodule", None)
        channels = getattr(data, "channels", None)
        if channels is not None:
            check_channels(channels, self.hparams["in_channels"])
        classes = getattr(data, "num_classes", None)
        if classes is not None and classes > self.hparams["num_classes"]:
            raise ValueError(
                f"the data have {classes} classes, the network {self.hparams['num_classes']}: "
                f"pass num_classes={classes}"
            )

    def detect(self, images: Tensor) -> list[Tensor]:
        """Return the detections of each image, (n, 6): x1, y1, x2, y2 in pixels, score, class.

        Each above ``object_confidence``, cut at the borders, best first, at most one class per box.

        Args:
            images: (B, 3, H, W) in [0, 1]; the module must be in eval mode.

        Raises:
            RuntimeError: the module is in training mode.
        """
        return self._suppress(images, self.hparams["object_confidence"], multi_label=False)

    def scored(self, images: Tensor) -> list[Tensor]:
        """Return what validation scores: all above ``confidence``, several classes a box.

        Args:
            images: (B, 3, H, W) in [0, 1]; the module must be in eval mode.

        Raises:
            RuntimeError: the module is in training mode.
        """
        return self._suppress(images, self.hparams["confidence"], multi_label=True)

    def _suppress(self, images: Tensor, confidence: float, multi_label: bool) -> list[Tensor]:
        check_channels(images.shape[1], self.hparams["in_channels"])
        outputs = self(images)
        predictions = outputs[0] if isinstance(outputs, tuple) else outputs
        if not isinstance(predictions, Tensor):
            raise RuntimeError("detections need eval mode: call .eval() first")
        hparams = self.hparams
        found = non_maximum_suppression(
            predictions, confidence, self.suppression_iou, hparams["max_detections"], multi_label
        )
        # Objects end at the border: boxes beyond it cost up to .004 mAP50-95 (BCCD).
        height, width = images.shape[-2:]
        return [clip_boxes(each, height, width) for each in found]

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> list[Tensor]:
        """Return the detections of each image of a batch, as ``detect`` does."""
        return self.detect(batch if isinstance(batch, Tensor) else batch[0])

    def predict_images(
        self,
        images: Any,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[str | int] | None = None,
        image_size: int | None = None,
        batch_size: int = 8,
        multi_label: bool = False,
    ) -> "list[Detections]":
        """Return the detections on each image, boxes in pixels of the original image.

        ``images`` are one or many: paths, folders, PIL images, RGB arrays (H, W, 3) uint8, or
        tensors (3, H, W), uint8 or in [0, 1]. They are letterboxed as in validation; the module is
        left as it was. ``predict.predict_images.predict_with_module`` explains every argument.
        """
        from lightning_prune.detection.predict.predict_images import predict_with_module

        return predict_with_module(
            self, images, confidence, iou, max_detections, classes, image_size, batch_size,
            multi_label,
        )  # fmt: skip

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation metric."""
        self._update(self.val_map, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test metric."""
        self._update(self.test_map, batch)

    def on_validation_epoch_end(self) -> None:
        """Log val/map50 and val/map50_95."""
        self._log_metric("val", self.val_map)

    def on_test_epoch_end(self) -> None:
        """Log test/map50 and test/map50_95."""
        self._log_metric("test", self.test_map)

    def _update(self, metric: DetectionAveragePrecision, batch: Batch) -> None:
        images, targets = batch
        check_targets(targets)
        # Every class above the threshold counts, as in the published figures: keeping the best
        # class only costs 0.018 mAP50 on 27 COCO photos.
        detections = self.scored(images)
        metric.update_batch(detections, targets, images.shape)

    def _log_metric(self, stage: str, metric: DetectionAveragePrecision) -> None:
        values = metric.summary()
        metric.reset()
        self.log_dict(
            {f"{stage}/{name}": value for name, value in values.items()},
            prog_bar=stage == "val",
            sync_dist=True,
        )

    def object_positions(self, batch: Batch) -> ObjectSamples:
        """Return where the objects of a batch are, before the network has seen it.

        Feature maps can then be read as they come; ``correct`` is True throughout.
        """
        targets = batch[1]
        image, x, y, width, height = targets["image"], *targets["box"].float().unbind(1)
        found = torch.ones_like(image, dtype=torch.bool)
        return ObjectSamples(image, targets["label"], found, x, y, width, height)

    @torch.no_grad()
    def object_samples(self, batch: Batch, outputs: Tensor | tuple[Tensor, ...]) -> ObjectSamples:
        """Return for every object of a batch where it is and whether the network found it.

        Found means: after non-maximum suppression at ``object_confidence`` a detection of its
        class overlaps it by an IoU of more than 0.5.

        Args:
            batch: Images and targets.
            outputs: What ``self(images)`` gave in eval mode.
        """
        images, targets = batch
        image, label, box = targets["image"], targets["label"], targets["box"].float()
        predictions = outputs if isinstance(outputs, Tensor) else outputs[0]
        found = find_candidates(predictions.detach().float(), self.hparams["object_confidence"])
        # One key per image and class: a single suppression and a single matching serve the batch.
        classes = self.hparams["num_classes"]
        key = found.image * classes + found.label
        keep = batched_nms(found.box.double(), found.score.double(), key, self.suppression_iou)
        size = box.new_tensor([images.shape[3], images.shape[2]]).repeat(2)
        corners = box_convert(box * size, "cxcywh", "xyxy")
        match = match_objects(found.box[keep], key[keep], corners, image * classes + label)
        return self.object_positions(batch)._replace(correct=match >= 0)

    # --- beside the dense network -----------------------------------------------------------

    def predictions_of(self, outputs: Any) -> Tensor:
        """Return boxes and class probabilities (B, 4 + nc, A) of what eval mode gives."""
        predictions = outputs if isinstance(outputs, Tensor) else outputs[0]
        found: Tensor = predictions[:, : 4 + self.hparams["num_classes"]]
        return found

    def saliency(self, outputs: Any) -> Tensor | None:
        """Return how sure the network is that something is at each place, (B, h, w).

        None where its anchors are not those of strides 8, 16 and 32.
        """
        return class_saliency(self.predictions_of(outputs).detach().float())

    def distillation_loss(self, outputs: Any, dense_outputs: Any) -> Tensor:
        """Return how far outputs are from those of the dense network; needs no labels.

        Of maps that the loss takes in training, and of predictions in eval mode.
        """
        maps = raw_maps(outputs, self.hparams["num_classes"])
        if maps:
            dense_maps = raw_maps(dense_outputs, self.hparams["num_classes"])
            losses = map(map_distillation_loss, maps, dense_maps)
            return torch.stack([*losses]).mean()
        given, wanted = self.predictions_of(outputs), self.predictions_of(dense_outputs)
        return detection_distillation_loss(given, wanted)

    @torch.no_grad()
    def agreement(self, outputs: Sequence[Any], dense_outputs: Sequence[Any]) -> float:
        """Return mAP50-95 of the detections, with the dense network's for objects.

        Args:
            outputs: What the network gives in eval mode for each batch.
            dense_outputs: What the dense network gave.
        """
        sure = float(self.hparams["object_confidence"])
        limits = (self.suppression_iou, self.hparams["max_detections"])
        found = [
            non_maximum_suppression(self.predictions_of(one), 0.001, *limits, True)
            for one in outputs
        ]
        dense = [
            non_maximum_suppression(self.predictions_of(one), sure, *limits, True)
            for one in dense_outputs
        ]
        return detection_agreement(found, dense, sure)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Build SGD or AdamW; norms and biases are not decayed."""
        return sgd_or_adamw(*by_dimension(self), self.hparams)
