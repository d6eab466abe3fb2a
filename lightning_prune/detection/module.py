"""YOLOv8 as a LightningModule, with its own loss."""

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from lightning_prune import arguments as ranges
from lightning_prune.annotations import AtLeast, Between
from lightning_prune.detection.arguments import (
    adapt_channels,
    check,
    check_channels,
    check_targets,
    resolve,
)
from lightning_prune.detection.detector_module import Batch, DetectorModule
from lightning_prune.detection.network.loss import DetectionLoss
from lightning_prune.detection.network.network import Size, YOLOv8
from lightning_prune.detection.network.reset_network import YOLOv8Reset
from lightning_prune.detection.weights.read_weights import PREFIX, PretrainedWeights, read_weights
from lightning_prune.functional.schedule import Schedule
from lightning_prune.surgery.architecture import RECORD, track_architecture
from lightning_prune.validation import check_arguments


class DetectionModule(DetectorModule):
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
        fast_on_cpu: True: trained on a processor, channels last and bf16-mixed pay.
        network: The ``YOLOv8``, or ``YOLOv8Reset`` with ``reset_blocks``.
        pretrained: True when every layer, the class head included, came from ``weights``.

    Raises:
        ValueError: an argument is out of range or does not fit the weights.
        FileNotFoundError: there is no such weight file.
    """

    fast_on_cpu = True

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and log its parts."""
        images, targets = batch
        check_targets(targets)
        check_channels(images.shape[1], self.hparams["in_channels"])
        parts = self.loss(self.network(images), targets)
        named = {"box": parts.box, "class": parts.classes, "dfl": parts.dfl}
        self.log_losses(parts.total / images.shape[0], named, images.shape[0])
        total: Tensor = parts.total
        return total
