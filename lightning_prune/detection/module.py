"""YOLOv8 as a LightningModule: training, mAP, and the objects that pruning looks at."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from lightning_prune import arguments as ranges
from lightning_prune.annotations import AtLeast, Between
from lightning_prune.detection.arguments import adapt_channels, check, check_channels, resolve
from lightning_prune.detection.average_precision import DetectionAveragePrecision
from lightning_prune.detection.network.loss import DetectionLoss
from lightning_prune.detection.network.network import Size, YOLOv8
from lightning_prune.detection.network.postprocess import (
    clip_boxes,
    find_candidates,
    non_maximum_suppression,
)
from lightning_prune.detection.network.reset_network import YOLOv8Reset
from lightning_prune.detection.weights.read_weights import PREFIX, PretrainedWeights, read_weights
from lightning_prune.functional.matching import match_objects
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.functional.schedule import Schedule
from lightning_prune.modules.scheduled_module import ScheduledModule
from lightning_prune.surgery.architecture import RECORD, track_architecture
from lightning_prune.validation import check_arguments

if TYPE_CHECKING:
    from lightning_prune.detection.predict.detections import Detections

Batch = tuple[Tensor, Mapping[str, Tensor]]


class DetectionModule(ScheduledModule):
    """Train, validate and test a YOLOv8 detector.

    A batch is ``(images, targets)``: images (B, C, H, W) in [0, 1]; targets ``image`` (M,),
    ``label`` (M,), ``box`` (M, 4) as centre x, centre y, width, height in [0, 1].

    Args:
        num_classes: Number of classes; None takes it from ``weights``.
        size: n, s, m, l or x; None takes it from ``weights``, or n. custom: widths and depths are
            those of ``architecture``.
        weights: A file to start from: ``.pt`` of Ultralytics, ``.safetensors``, a state dict or a
            checkpoint of this module. Not kept as a hyper-parameter.
        names: Class names; None takes them from ``weights``, if they are there.
        image_size: Side of the square images in pixels, a multiple of 32; None takes it from
            ``weights``, or 640.
        optimizer: ``sgd`` (Nesterov) or ``adamw``.
        lr: Largest learning rate.
        momentum: Momentum of SGD; AdamW uses betas (0.9, 0.999).
        weight_decay: Applied to tensors of more than one dimension only.
        warmup_epochs: Epochs of linear warm-up, at most a third of the run (linear and cosine).
        final_lr: Learning rate at the end as a fraction of ``lr``.
        schedule: Shape of the decay: linear, cosine or one_cycle.
        schedule_epochs: Epochs that the schedule spans, after which the final rate stays (what
            follows, such as recovery after pruning, has a schedule of its own); 0: the whole run.
        box_gain: Weight of the CIoU loss.
        class_gain: Weight of the classification loss.
        dfl_gain: Weight of the distribution focal loss.
        confidence: Detections below it are left out of mAP, in [0, 1).
        nms_iou: Overlap above which the weaker of two boxes of a class is dropped, in [0, 1].
        max_detections: Largest number of detections per image.
        object_confidence: Confidence above which a detection counts as found in
            ``object_samples`` and ``predict_step``, in [0, 1).
        reset_blocks: Build the stages p3, p4 and p5 of ``CSPReset`` blocks, which count the use of
            their channels and can reset them.
        topk: Fraction of the places that each output channel of these blocks keeps, in (0, 1];
            None: all.
        threshold: Mean magnitude above which such a channel counts as used, at least 0.
        in_channels: Channels of an image, such as 1 for grey ones; None takes them from
            ``weights``, or 3. Weights of 3 and of 1 channel are turned into each other: they
            compute the same on grey images.
        architecture: What is not as published: values of ``Architecture`` by name, such as
            ``{"activation": "relu"}``; what is left out comes from ``weights``.

    Attributes:
        network: The ``YOLOv8``, or ``YOLOv8Reset`` with ``reset_blocks``.
        pretrained: True when every layer, the class head included, came from ``weights``.

    Raises:
        ValueError: an argument is out of range or does not fit the weights.
        FileNotFoundError: there is no such weight file.
    """

    def __init__(
        self,
        num_classes: Annotated[int | None, Between(1, 100_000)] = None,
        size: Size | None = None,
        weights: str | None = None,
        names: list[str] | None = None,
        image_size: ranges.ImageSize | None = None,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: ranges.LearningRate = 0.01,
        momentum: Annotated[float, Between(0, 1, ends="[)")] = 0.937,
        weight_decay: ranges.Strength = 5e-4,
        warmup_epochs: Annotated[float, AtLeast(0)] = 3.0,
        final_lr: ranges.FinalRate = 0.01,
        schedule: Schedule = "linear",
        schedule_epochs: ranges.NonNegative = 0,
        box_gain: ranges.Strength = 7.5,
        class_gain: ranges.Strength = 0.5,
        dfl_gain: ranges.Strength = 1.5,
        confidence: ranges.Threshold = 0.001,
        nms_iou: ranges.Overlap = 0.7,
        max_detections: Annotated[int, Between(1, 10**9)] = 300,
        object_confidence: ranges.Threshold = 0.25,
        reset_blocks: bool = False,
        topk: ranges.TopK = None,
        threshold: ranges.UsageThreshold = 1e-6,
        in_channels: Annotated[int | None, Between(1, 4096)] = None,
        architecture: dict[str, Any] | None = None,
    ):
        super().__init__()
        found = None if weights is None else read_weights(Path(weights))
        # Resolved before they are saved, so that a checkpoint rebuilds without the weight file.
        num_classes, size, image_size, names, in_channels, architecture, replaced = resolve(
            found, num_classes, size, image_size, names, in_channels, architecture
        )
        self.save_hyperparameters(ignore=["weights"])
        check_arguments(DetectionModule.__init__, self.hparams)
        check(self.hparams)
        self.network = (
            YOLOv8Reset(size, num_classes, in_channels, None, None, topk, threshold, architecture)
            if reset_blocks
            else YOLOv8(size, num_classes, in_channels, architecture=architecture)
        )
        self.loss = DetectionLoss(box_gain, class_gain, dfl_gain)
        self.val_map = DetectionAveragePrecision()
        self.test_map = DetectionAveragePrecision()
        self.example_input_array = torch.zeros(1, in_channels, image_size, image_size)
        track_architecture(self)
        self.pretrained = found is not None and self._adopt(found) and not replaced

    def _adopt(self, found: PretrainedWeights) -> bool:
        """Load weights; return whether all of them, the class head included, fitted."""
        own = self.network.state_dict()
        state = adapt_channels(found, self.hparams["in_channels"])
        complete: bool = found.num_classes == self.hparams["num_classes"]
        if not complete:
            if found.record is not None:
                raise ValueError(
                    f"num_classes={self.hparams['num_classes']}: the pruned weights have "
                    f"{found.num_classes} classes; leave num_classes out, or start from dense ones"
                )
            fresh = [name for name, value in state.items() if value.shape != own[name].shape]
            state.update({name: own[name] for name in fresh})
            warnings.warn(
                f"the weights have {found.num_classes} classes, num_classes is "
                f"{self.hparams['num_classes']}: the class head starts fresh, "
                f"{len(fresh)} tensors of it",
                stacklevel=3,
            )
        state = {PREFIX + name: value for name, value in state.items()}
        if found.record is not None:
            state[RECORD] = found.record
        self.load_state_dict(state)
        return complete

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Return (B, 4 + nc, A) in eval mode, three raw maps (B, 64 + nc, h, w) in training.

        Eval mode gives boxes as centre x, centre y, width, height in pixels, then class
        probabilities.
        """
        out: Tensor | list[Tensor] = self.network(images)
        return out

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and log its parts."""
        images, targets = batch
        check_channels(images.shape[1], self.hparams["in_channels"])
        parts = self.loss(self.network(images), targets)
        batch_size = images.shape[0]
        self.log(
            "train/loss", parts.total.detach() / batch_size, prog_bar=True, on_epoch=True,
            on_step=False, batch_size=batch_size,
        )  # fmt: skip
        self.log_dict(
            {
                "train/box_loss": parts.box,
                "train/class_loss": parts.classes,
                "train/dfl_loss": parts.dfl,
            },
            on_epoch=True,
            on_step=False,
            batch_size=batch_size,
        )
        total: Tensor = parts.total
        return total

    def detect(self, images: Tensor) -> list[Tensor]:
        """Return the detections of each image, (n, 6): x1, y1, x2, y2 in pixels, score, class.

        Each above ``object_confidence``, cut at the borders, best first, at most one class per box.

        Args:
            images: (B, 3, H, W) in [0, 1]; the module must be in eval mode.

        Raises:
            RuntimeError: the module is in training mode.
        """
        return self._suppress(images, self.hparams["object_confidence"], multi_label=False)

    def _suppress(self, images: Tensor, confidence: float, multi_label: bool) -> list[Tensor]:
        check_channels(images.shape[1], self.hparams["in_channels"])
        predictions = self(images)
        if not isinstance(predictions, Tensor):
            raise RuntimeError("detections need eval mode: call .eval() first")
        hparams = self.hparams
        found = non_maximum_suppression(
            predictions, confidence, hparams["nms_iou"], hparams["max_detections"], multi_label
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
        # Every class above the threshold counts, as in the published figures: keeping the best
        # class only costs 0.018 mAP50 on 27 COCO photos.
        detections = self._suppress(images, self.hparams["confidence"], multi_label=True)
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
    def object_samples(self, batch: Batch, outputs: Tensor) -> ObjectSamples:
        """Return for every object of a batch where it is and whether the network found it.

        Found means: after non-maximum suppression at ``object_confidence`` a detection of its
        class overlaps it by an IoU of more than 0.5.

        Args:
            batch: Images and targets.
            outputs: What ``self(images)`` gave in eval mode.
        """
        images, targets = batch
        image, label, box = targets["image"], targets["label"], targets["box"].float()
        found = find_candidates(outputs.detach().float(), self.hparams["object_confidence"])
        # One key per image and class: a single suppression and a single matching serve the batch.
        classes = self.hparams["num_classes"]
        key = found.image * classes + found.label
        keep = batched_nms(found.box.double(), found.score.double(), key, self.hparams["nms_iou"])
        size = box.new_tensor([images.shape[3], images.shape[2]]).repeat(2)
        corners = box_convert(box * size, "cxcywh", "xyxy")
        match = match_objects(found.box[keep], key[keep], corners, image * classes + label)
        return self.object_positions(batch)._replace(correct=match >= 0)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Build SGD or AdamW; norms and biases are not decayed."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        lr, decay = self.hparams["lr"], self.hparams["weight_decay"]
        if self.hparams["optimizer"] == "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), weight_decay=decay)
        momentum = self.hparams["momentum"]
        return torch.optim.SGD(
            groups, lr=lr, momentum=momentum, weight_decay=decay, nesterov=momentum > 0
        )
