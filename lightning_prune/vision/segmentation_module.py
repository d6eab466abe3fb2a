"""Networks of segmentation_models_pytorch as a LightningModule: training, mIoU, pruning."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_prune import arguments as ranges
from lightning_prune.annotations import AtLeast, Between
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.functional.schedule import Schedule
from lightning_prune.modules.optimizers import by_dimension, sgd_or_adamw
from lightning_prune.modules.scheduled_module import ScheduledModule
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.validation import check_arguments
from lightning_prune.vision.segmentation_loss import segmentation_loss
from lightning_prune.vision.segmentation_metric import SegmentationIoU
from lightning_prune.vision.segmentation_network import build_network, check_size
from lightning_prune.vision.segmentation_pixels import pixels_at, sample_pixels
from lightning_prune.vision.segmentation_weights import read_fitted

Batch = tuple[Tensor, Tensor]
_FROM_DATA = ("num_classes", "in_channels", "image_size", "ignore_index")


class SegmentationModule(ScheduledModule):
    """Train, validate and test a network that gives every pixel a class.

    A batch is ``(images, masks)``: images (B, C, H, W) in [0, 1]; masks (B, H, W) int64, a class or
    ``ignore_index``. The loss is cross-entropy and soft Dice, weighted; ``val/miou`` is the mean
    over classes of the intersection over union of all validation pixels.

    Args:
        name: Class of segmentation_models_pytorch: Unet, UnetPlusPlus, FPN, DeepLabV3Plus, ...
        encoder: Its encoder: resnet18, mobilenet_v2, ..., or ``tu-NAME`` of timm.
        num_classes: Number of classes, the background among them.
        in_channels: Channels of an image; None: 3.
        options: Further arguments of the network's class, such as ``{"encoder_depth": 4}``.
        weights: A file to start from: a checkpoint of this module, pruned or not, a state dict or
            ``.safetensors`` of the network, or of its encoder alone. Not kept as a hyper-parameter.
        names: Class names; None: numbers.
        image_size: Side of the square images in pixels; None: 512.
        ignore_index: Value in masks of pixels that do not count; None: 255.
        cross_entropy_weight: Weight of the cross-entropy.
        dice_weight: Weight of the Dice loss.
        object_pixels: Pixels of a class in an image that become objects in ``object_samples``.
        optimizer: ``adamw`` or ``sgd`` (Nesterov).
        lr: Largest learning rate.
        momentum: Momentum of SGD; AdamW uses betas (0.9, 0.999).
        weight_decay: Applied to tensors of more than one dimension only.
        warmup_epochs: Epochs of linear warm-up, at most a third of the run.
        final_lr: Learning rate at the end as a fraction of ``lr``.
        schedule: Shape of the decay: linear, cosine or one_cycle.
        schedule_epochs: Epochs that the schedule spans, after which the final rate stays; 0: the
            whole run.

    Attributes:
        network: The network as segmentation_models_pytorch builds it.
        pretrained: True when every layer, the head included, came from ``weights``.

    Raises:
        ImportError: segmentation_models_pytorch is not installed.
        ValueError: an argument is out of range, unknown to it, or does not fit the weights.
        FileNotFoundError: there is no such weight file.
    """

    def __init__(
        self,
        name: str = "Unet",
        encoder: str = "resnet34",
        num_classes: Annotated[int | None, Between(2, 65535)] = None,
        in_channels: Annotated[int | None, Between(1, 4096)] = None,
        options: dict[str, Any] | None = None,
        weights: str | None = None,
        names: list[str] | None = None,
        image_size: Annotated[int | None, Between(8, 16384)] = None,
        ignore_index: Annotated[int | None, Between(-(2**31), 2**31 - 1)] = None,
        cross_entropy_weight: ranges.Strength = 1.0,
        dice_weight: ranges.Strength = 1.0,
        object_pixels: ranges.Count = 32,
        optimizer: Literal["sgd", "adamw"] = "adamw",
        lr: ranges.LearningRate = 1e-3,
        momentum: Annotated[float, Between(0, 1, ends="[)")] = 0.9,
        weight_decay: ranges.Strength = 1e-4,
        warmup_epochs: Annotated[float, AtLeast(0)] = 1.0,
        final_lr: ranges.FinalRate = 0.01,
        schedule: Schedule = "cosine",
        schedule_epochs: ranges.NonNegative = 0,
    ):
        super().__init__()
        # Resolved before they are saved, so that a checkpoint does not depend on later defaults.
        in_channels = 3 if in_channels is None else in_channels
        image_size = 512 if image_size is None else image_size
        ignore_index = 255 if ignore_index is None else ignore_index
        names = None if names is None else [str(each) for each in names]
        self.save_hyperparameters(ignore=["weights"])
        check_arguments(SegmentationModule.__init__, self.hparams)
        _check(self.hparams)
        assert num_classes is not None
        self.network = build_network(name, encoder, num_classes, in_channels, options)
        check_size(self.network, name, in_channels, image_size)
        self.val_iou = SegmentationIoU(num_classes, ignore_index)
        self.test_iou = SegmentationIoU(num_classes, ignore_index)
        self.example_input_array = torch.zeros(1, in_channels, image_size, image_size)
        track_architecture(self)
        self.pretrained = weights is not None and self._adopt(Path(weights).expanduser())

    def _adopt(self, path: Path) -> bool:
        """Load weights; return whether all of them, the head included, were there."""
        found = read_fitted(path, self.state_dict())
        self.load_state_dict(found.state)
        if found.fresh:
            rank_zero_warn(
                f"weights={path}: {len(found.fresh)} tensors start fresh, {found.fresh[0]} the "
                "first of them"
            )
        if found.unused:
            rank_zero_info(f"weights={path}: left aside are {', '.join(found.unused[:8])}")
        return not found.fresh

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    def setup(self, stage: str) -> None:
        """Compare the data with the network.

        Raises:
            ValueError: they have other classes, channels or sizes.
        """
        data = getattr(self.trainer, "datamodule", None)
        known = {"in_channels": getattr(data, "channels", None)}
        for key in _FROM_DATA:
            own, found = self.hparams[key], getattr(data, key, known.get(key))
            if found is not None and found != own:
                raise ValueError(
                    f"the data have {key}={found}, the network was built with {own}: pass "
                    f"model.{key}={found} on the command line, {key}={found} in Python"
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and log its parts."""
        images, masks = _checked(batch)
        parts = segmentation_loss(self.network(images), masks, self.hparams["ignore_index"])
        loss: Tensor = (
            self.hparams["cross_entropy_weight"] * parts.cross_entropy
            + self.hparams["dice_weight"] * parts.dice
        )
        options: dict[str, Any] = {"on_epoch": True, "on_step": False, "batch_size": len(images)}
        self.log("train/loss", loss.detach(), prog_bar=True, **options)
        values = {f"train/{key}": value.detach() for key, value in parts._asdict().items()}
        self.log_dict(values, **options)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation metric."""
        images, masks = _checked(batch)
        self.val_iou.update(self.predict_step(images, batch_idx), masks)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test metric."""
        images, masks = _checked(batch)
        self.test_iou.update(self.predict_step(images, batch_idx), masks)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the likeliest class of every pixel, (B, H, W) int64."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        found: Tensor = self.network(images).argmax(1)
        return found

    def on_validation_epoch_end(self) -> None:
        """Log val/miou and val/accuracy."""
        self._log_metric("val", self.val_iou)

    def on_test_epoch_end(self) -> None:
        """Log test/miou, test/accuracy and the IoU of each class that occurs, test/iou/NAME."""
        iou = self._log_metric("test", self.test_iou)
        names = self.hparams["names"] or range(len(iou))
        each = {f"test/iou/{name}": value for name, value in zip(names, iou, strict=True)}
        known = {key: value for key, value in each.items() if not value.isnan()}
        self.log_dict(known, sync_dist=True)

    def _log_metric(self, stage: str, metric: SegmentationIoU) -> Tensor:
        values = metric.compute()
        metric.reset()
        iou = values.pop("iou")
        self.log_dict(
            {f"{stage}/{key}": value for key, value in values.items()},
            prog_bar=stage == "val",
            sync_dist=True,  # the same on all ranks: the counts have been summed already
        )
        return iou

    def object_positions(self, batch: Batch) -> ObjectSamples:
        """Return some pixels of every class in every image, before the network has seen them.

        At most ``object_pixels`` of a class in an image, spread over where it is; which ones
        depends on the mask alone. ``correct`` is True throughout.
        """
        return sample_pixels(batch[1], self.hparams["object_pixels"], self.hparams["ignore_index"])

    @torch.no_grad()
    def object_samples(self, batch: Batch, outputs: Tensor) -> ObjectSamples:
        """Return the same pixels, and whether the network gives each its class.

        Args:
            batch: Images and masks.
            outputs: What ``self(images)`` gave in eval mode.
        """
        samples = self.object_positions(batch)
        return samples._replace(correct=pixels_at(outputs.argmax(1), samples) == samples.label)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Build AdamW or SGD; norms and biases are not decayed."""
        return sgd_or_adamw(*by_dimension(self), self.hparams)


def _checked(batch: Any) -> Batch:
    """Return a batch of images and masks.

    Raises:
        ValueError: it is one of another kind.
    """
    masks = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
    if not isinstance(masks, Tensor) or masks.ndim != 3 or masks.is_floating_point():
        raise ValueError(
            "the data give no masks: a batch must be (images (B, C, H, W), masks (B, H, W) of "
            "integers), such as those of data=mask_folder"
        )
    return batch[0], masks


def _check(hparams: Mapping[str, Any]) -> None:
    """Check what arguments must be together.

    Raises:
        ValueError: two do not go together, or nothing says how many classes there are.
    """
    classes: int | None = hparams["num_classes"]
    names: Sequence[str] | None = hparams["names"]
    if classes is None:
        raise ValueError("num_classes is missing: pass the number of classes, background included")
    if names is not None and len(names) != classes:
        raise ValueError(
            f"names has {len(names)} entries, num_classes is {classes}: pass one name per class"
        )
    if 0 <= hparams["ignore_index"] < classes:
        raise ValueError(
            f"ignore_index={hparams['ignore_index']} is one of the {classes} classes: pass a "
            "value that no class has"
        )
    if hparams["cross_entropy_weight"] == 0 == hparams["dice_weight"]:
        raise ValueError(
            "cross_entropy_weight=0, dice_weight=0: nothing is learnt, give one of them"
        )
