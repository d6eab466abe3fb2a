"""A classifier of timm as a LightningModule: training, accuracy, weights from files."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_prune.annotations import AtLeast, Between
from lightning_prune.arguments import FinalRate, LearningRate, NonNegative, Strength
from lightning_prune.functional.schedule import Schedule
from lightning_prune.modules.optimizers import sgd_or_adamw
from lightning_prune.modules.scheduled_module import ScheduledModule
from lightning_prune.surgery.architecture import RECORD, track_architecture
from lightning_prune.validation import check_arguments
from lightning_prune.vision.classifier_arguments import (
    check_data,
    read_batch,
    resolve_classes,
    spread,
)
from lightning_prune.vision.classifier_fit import with_weights
from lightning_prune.vision.classifier_timm import (
    build_network,
    check_logits,
    check_name,
    data_settings,
    head_names,
    published_classes,
)
from lightning_prune.vision.classifier_weights import (
    PREFIX,
    ClassifierWeights,
    read_classifier_weights,
)

Batch = tuple[Tensor, Tensor]
TOP = 5
"""Places that count for the second accuracy, of more classes than that."""


class ClassifierModule(ScheduledModule):
    """Train, validate and test a classifier that timm has under a name.

    A batch is ``(images, labels)``: images (B, C, H, W) in [0, 1], labels (B,) int64. The module
    itself subtracts ``mean`` and divides by ``std``, so that all users of a checkpoint or of an
    exported file give it images in [0, 1].

    Logged are ``train/loss`` (with label smoothing), ``val/loss`` and ``test/loss`` (without),
    ``val/accuracy`` and ``test/accuracy``, and of more than 5 classes ``val/accuracy_top5`` and
    ``test/accuracy_top5``.

    Args:
        name: A name of ``timm.list_models()``, with or without the tag of its weights.
        num_classes: Number of classes; None takes it from the weights.
        weights: A file to start from: ``.safetensors`` or ``.pth`` as timm writes them, or a
            checkpoint of this module, pruned or not. Not kept as a hyper-parameter.
        pretrained: Fetch the published weights from the hub. Not kept as a hyper-parameter.
        names: Class names, compared with those of the data.
        image_size: Side of the square images in pixels; None: what timm says.
        in_channels: Channels of an image; None: 3. Weights of 3 channels are turned into others.
        mean: Of each channel, in [0, 1]; None: what timm says.
        std: Of each channel; None: what timm says.
        label_smoothing: Probability that training spreads over the other classes.
        drop_rate: Dropout before the head.
        drop_path: Probability that a residual branch is left out of a training sample.
        arguments: Further ones of ``timm.create_model``, plain values: ``{"patch_size": 4}``.
        optimizer: ``adamw`` or ``sgd`` (Nesterov).
        lr: Largest learning rate.
        momentum: Momentum of SGD; AdamW uses betas (0.9, 0.999).
        weight_decay: Of tensors of more than one dimension, but those that timm names (position
            embeddings).
        warmup_epochs: Epochs of linear warm-up, at most a third of the run.
        final_lr: Learning rate at the end as a fraction of ``lr``.
        schedule: Shape of the decay: linear, cosine or one_cycle.
        schedule_epochs: Epochs that the schedule spans, after which the final rate stays; 0: the
            whole run.

    Attributes:
        network: That of timm.
        evaluation_view: How timm wants images to be cut, which ``ImageFolderData`` follows.
        pretrained: True when every layer, the head included, came with weights.

    Raises:
        ImportError: timm is not installed.
        ValueError: there is no such name, an argument is out of range, or the weights do not fit.
        FileNotFoundError: there is no such weight file.
    """

    def __init__(
        self,
        name: str,
        num_classes: Annotated[int | None, Between(2, 1_000_000)] = None,
        weights: str | None = None,
        pretrained: bool = False,
        names: list[str] | None = None,
        image_size: Annotated[int | None, Between(8, 16384, "pixels")] = None,
        in_channels: Annotated[int | None, Between(1, 4096)] = None,
        mean: list[float] | None = None,
        std: Annotated[list[float] | None, AtLeast(1e-6)] = None,
        label_smoothing: Annotated[float, Between(0, 1, "a probability", "[)")] = 0.1,
        drop_rate: Annotated[float, Between(0, 1, "a probability", "[)")] = 0.0,
        drop_path: Annotated[float, Between(0, 1, "a probability", "[)")] = 0.0,
        arguments: dict[str, Any] | None = None,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        lr: LearningRate = 1e-3,
        momentum: Annotated[float, Between(0, 1, ends="[)")] = 0.9,
        weight_decay: Strength = 0.05,
        warmup_epochs: Annotated[float, AtLeast(0)] = 1.0,
        final_lr: FinalRate = 0.01,
        schedule: Schedule = "cosine",
        schedule_epochs: NonNegative = 0,
    ):
        check_arguments(ClassifierModule.__init__, locals())
        super().__init__()
        check_name(name)
        if weights is not None and pretrained:
            raise ValueError("weights and pretrained=true: give one of them")
        found = None if weights is None else read_classifier_weights(Path(weights))
        heads = head_names(name)
        # Resolved before they are saved, so that a checkpoint rebuilds without file and network.
        num_classes = resolve_classes(name, num_classes, names, found, heads, pretrained)
        in_channels = 3 if in_channels is None else in_channels
        settings: dict[str, Any] = {
            "name": name, "num_classes": num_classes, "in_channels": in_channels,
            "image_size": image_size,
            "arguments": {
                **({"drop_rate": drop_rate} if drop_rate else {}),
                **({"drop_path_rate": drop_path} if drop_path else {}),
                **(arguments or {}),
            },
        }  # fmt: skip
        network = build_network(**settings, pretrained=pretrained)
        own = data_settings(network)
        image_size = own["image_size"] if image_size is None else image_size
        mean = spread(own["mean"], in_channels) if mean is None else list(mean)
        std = spread(own["std"], in_channels) if std is None else list(std)
        self.save_hyperparameters(ignore=["weights", "pretrained"])
        for key, values in (("mean", mean), ("std", std)):
            if len(values) != in_channels:
                raise ValueError(f"{key}={values}: pass {in_channels} numbers, one for a channel")
        self.pretrained = pretrained and published_classes(name) == num_classes
        if found is not None and found.record is None:
            network, self.pretrained = with_weights(network, found, heads, settings)
        self.network = network
        self.evaluation_view = {
            "image_size": image_size,
            **{key: own[key] for key in ("crop_fraction", "interpolation", "squash")},
        }
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.example_input_array = torch.zeros(1, in_channels, image_size, image_size)
        check_logits(self, self.example_input_array, num_classes)
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.val_metrics = nn.ModuleDict(_metrics(num_classes))
        self.test_metrics = nn.ModuleDict(_metrics(num_classes))
        track_architecture(self)
        if found is not None and found.record is not None:
            self._adopt_pruned(found)

    def _adopt_pruned(self, found: ClassifierWeights) -> None:
        state = {f"{PREFIX}{name}": value for name, value in found.tensors.items()}
        try:
            self.load_state_dict({**state, RECORD: found.record})
        except (RuntimeError, ValueError) as error:
            lines = str(error).strip().splitlines()
            raise ValueError(
                f"weights={found.path} are pruned and of another network ({lines[-1].strip()}): "
                "pass name, num_classes, image_size and arguments that it was built with"
            ) from error
        self.pretrained = True

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W) in [0, 1]."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        logits: Tensor = self.network((images - mean) / std)
        return logits

    def setup(self, stage: str) -> None:
        """Compare the data with the network.

        Raises:
            ValueError: they have other classes, channels or image sizes.
        """
        check_data(getattr(self.trainer, "datamodule", None), self.hparams)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and log it."""
        images, labels = read_batch(batch)
        loss: Tensor = self.loss(self(images), labels)
        self.log(
            "train/loss", loss.detach(), prog_bar=True, on_epoch=True, on_step=False,
            batch_size=len(images),
        )  # fmt: skip
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        self._update(self.val_metrics, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        self._update(self.test_metrics, batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the probability of each class, (B, K)."""
        logits: Tensor = self(batch if isinstance(batch, Tensor) else batch[0])
        return logits.softmax(1)

    def on_validation_epoch_end(self) -> None:
        """Log val/accuracy, val/loss and of many classes val/accuracy_top5."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log test/accuracy, test/loss and of many classes test/accuracy_top5."""
        self._log_metrics("test", self.test_metrics)

    def _update(self, metrics: nn.ModuleDict, batch: Batch) -> None:
        images, labels = read_batch(batch)
        logits = self(images)
        for name, metric in metrics.items():
            assert isinstance(metric, Metric)
            if name == "loss":
                losses = nn.functional.cross_entropy(logits.float(), labels, reduction="none")
                metric.update(losses)
            else:
                metric.update(logits, labels)

    def _log_metrics(self, stage: str, metrics: nn.ModuleDict) -> None:
        values = {}
        for name, metric in metrics.items():
            assert isinstance(metric, Metric)
            values[f"{stage}/{name}"] = metric.compute().float()
            metric.reset()
        # The same on all ranks: the metrics have been reduced already.
        self.log_dict(values, prog_bar=stage == "val", sync_dist=True)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Build AdamW or SGD; norms, biases and what timm names are not decayed."""
        named: set[str] = getattr(self.network, "no_weight_decay", set)()
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and name not in named
                (decayed if decays else others).append(parameter)
        return sgd_or_adamw(decayed, others, self.hparams)


def _metrics(num_classes: int) -> dict[str, Metric]:
    found: dict[str, Metric] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "loss": MeanMetric(),
    }
    if num_classes > TOP:
        found["accuracy_top5"] = MulticlassAccuracy(num_classes, top_k=TOP, average="micro")
    return found
