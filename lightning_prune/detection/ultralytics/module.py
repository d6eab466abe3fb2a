"""Networks of the installed `ultralytics` package as a LightningModule, with their own loss."""

import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from lightning_prune import arguments as ranges
from lightning_prune.annotations import AtLeast, Between
from lightning_prune.detection.arguments import check_channels, check_targets
from lightning_prune.detection.data.yolo_layout import YoloLayout
from lightning_prune.detection.detector_module import Batch, DetectorModule
from lightning_prune.detection.ultralytics.build_network import (
    build_network,
    compare,
    network_yaml,
    set_halves,
)
from lightning_prune.detection.ultralytics.data_yaml import whole_paths, write_data_yaml
from lightning_prune.detection.ultralytics.network_file import KINDS, NetworkFile, read_network
from lightning_prune.detection.ultralytics.package import settings_of
from lightning_prune.detection.ultralytics.their_batch import named_parts, their_batch
from lightning_prune.detection.ultralytics.their_figures import their_figures
from lightning_prune.detection.ultralytics.their_output import (
    chooses,
    is_transformer,
    predictions,
    with_prototypes,
)
from lightning_prune.functional.schedule import Schedule
from lightning_prune.runs.trainer.fit_state import trainer_of
from lightning_prune.surgery.architecture import RECORD, track_architecture
from lightning_prune.validation import check_arguments

PREFIX = "network."


class UltralyticsModule(DetectorModule):
    """Train, validate, test and prune a network of Ultralytics as it is.

    Detectors (YOLOv3u, v5u, v6, v8, v9, v10, 11, 12, 26, RT-DETR) and networks that segment. The
    network is built by the installed package, the loss is its own, the file is read without
    executing anything in it. Batches are those of ``DetectorModule``; what a task needs besides,
    such as ``masks``, is in the targets under the name that the loss reads.

    Args:
        weights: A file to start from: ``.pt`` of Ultralytics, one that ``export --format
            ultralytics`` wrote, or a plain state dict beside ``name``. Not kept.
        name: A network of the package to start from scratch, such as ``yolo11n``.
        num_classes: Number of classes; None takes it from ``weights``, or from the network.
        names: Class names; None takes them from ``weights``.
        image_size: Side of the square images in pixels, a multiple of 32; None takes it from
            ``weights``, or 640.
        in_channels: Channels of an image; None takes them from ``weights``, or 3.
        optimizer: ``sgd`` (Nesterov) or ``adamw``.
        lr: Largest learning rate.
        momentum: Momentum of SGD; AdamW uses betas (0.9, 0.999).
        weight_decay: Applied to tensors of more than one dimension only.
        warmup_epochs: Epochs of linear warm-up, at most a third of the run (linear and cosine).
        final_lr: Learning rate at the end as a fraction of ``lr``.
        schedule: Shape of the decay: linear, cosine or one_cycle.
        schedule_epochs: Epochs that the schedule spans; 0: the whole run.
        box_gain: Their ``box``, weight of the box loss.
        class_gain: Their ``cls``, weight of the class loss.
        dfl_gain: Their ``dfl``, weight of the distribution focal loss.
        confidence: Detections below it are left out of mAP, in [0, 1).
        nms_iou: Overlap above which the weaker of two boxes of a class is dropped, in [0, 1];
            networks that give each object once are not suppressed.
        max_detections: Largest number of detections per image.
        object_confidence: Confidence above which a detection counts as found in
            ``object_samples`` and ``predict_step``, in [0, 1).
        their_validator: Whether ``trainer.test`` also runs the package's own validator, on data
            that have a ``data.yaml``.
        kind: Class of the network; None takes it from ``weights`` or ``name``.
        yaml: What the network is built of; None takes it from ``weights`` or ``name``.
        activations: Path of a module -> its activation, where it is not what the YAML says.

    Attributes:
        network: The network, an object of the installed package.
        pretrained: True when every tensor came from ``weights``.

    Raises:
        ModuleNotFoundError: the package is not installed, or too old.
        ValueError: an argument is out of range or does not fit the weights.
        FileNotFoundError: there is no such weight file.
    """

    def __init__(
        self,
        weights: str | None = None,
        name: str | None = None,
        num_classes: Annotated[int | None, Between(1, 100_000)] = None,
        names: list[str] | None = None,
        image_size: ranges.ImageSize | None = None,
        in_channels: Annotated[int | None, Between(1, 4096)] = None,
        optimizer: Literal["sgd", "adamw"] = "adamw",
        lr: ranges.LearningRate = 0.002,
        momentum: Annotated[float, Between(0, 1, ends="[)")] = 0.937,
        weight_decay: ranges.Strength = 5e-4,
        warmup_epochs: Annotated[float, AtLeast(0)] = 1.0,
        final_lr: ranges.FinalRate = 0.01,
        schedule: Schedule = "cosine",
        schedule_epochs: ranges.NonNegative = 0,
        box_gain: ranges.Strength = 7.5,
        class_gain: ranges.Strength = 0.5,
        dfl_gain: ranges.Strength = 1.5,
        confidence: ranges.Threshold = 0.001,
        nms_iou: ranges.Overlap = 0.7,
        max_detections: Annotated[int, Between(1, 10**9)] = 300,
        object_confidence: ranges.Threshold = 0.25,
        their_validator: bool = True,
        kind: str | None = None,
        yaml: dict[str, Any] | None = None,
        activations: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        found = None if weights is None else read_network(weights)
        # Resolved before they are saved, so that a checkpoint rebuilds without the weight file.
        kind, yaml = _built_of(found, name, kind, yaml)
        num_classes, names = _classes(found, yaml, num_classes, names)
        image_size = image_size or _image_size(found)
        in_channels = in_channels or int(yaml.get("channels") or yaml.get("ch") or 3)
        if activations is None:
            activations = {} if found is None else _activations(found, in_channels)
        network: Any = build_network(kind, yaml, num_classes, in_channels, activations)
        self.save_hyperparameters(ignore=["weights"])
        check_arguments(UltralyticsModule.__init__, self.hparams)
        self.network = network
        network.names = dict(enumerate(names or map(str, range(num_classes))))
        self._criterion: tuple[Any, torch.device, int] | None = None
        self.example_input_array = torch.zeros(1, in_channels, image_size, image_size)
        track_architecture(self)
        self.pretrained = found is not None and self._adopt(found)

    def _adopt(self, found: NetworkFile) -> bool:
        """Load weights; return whether all of them, the class head included, fitted."""
        own = self.network.state_dict()
        tensors = {key.removeprefix(_place(found.tensors)): v for key, v in found.tensors.items()}
        if found.record is not None:
            if found.yaml is not None and self.hparams["num_classes"] != found.yaml["nc"]:
                raise ValueError(
                    f"num_classes={self.hparams['num_classes']}: the pruned weights have "
                    f"{found.yaml['nc']} classes; leave num_classes out, or start from dense ones"
                )
            state = {PREFIX + key: value for key, value in tensors.items()}
            self.load_state_dict({**state, RECORD: found.record})
            if found.model is not None:
                keys = ("kind", "yaml", "num_classes", "in_channels")
                set_halves(self.network, build_network(*(self.hparams[key] for key in keys)))
                compare(found.model, self.network, found.version)
            return True
        # Counters of batches: safetensors of others leave them out.
        counters = {k for k in own if k.endswith("num_batches_tracked") and k not in tensors}
        fresh = [
            key
            for key, value in own.items()
            if key not in counters and (key not in tensors or tensors[key].shape != value.shape)
        ]
        if len(fresh) > len(own) // 2:
            raise ValueError(
                f"{len(own) - len(fresh)} of {len(own)} tensors of the network are in the weights: "
                "they belong to another one, or were pruned without a record of it"
            )
        kept = own.keys() - set(fresh) - counters
        self.network.load_state_dict({**own, **{key: tensors[key] for key in kept}})
        if fresh:
            warnings.warn(
                f"{len(fresh)} of {len(own)} tensors do not fit the weights and start fresh, such "
                f"as {fresh[0]}: num_classes is {self.hparams['num_classes']}",
                stacklevel=3,
            )
        return not fresh

    def forward(self, images: Tensor) -> Any:
        """Return (B, 4 + nc, A) in eval mode, what the loss of the network takes in training.

        Eval mode gives boxes as centre x, centre y, width, height in pixels, then class
        probabilities; of a network that segments also mask coefficients (B, n, A) and prototypes
        (B, n, h, w).
        """
        out = self.network(images)
        if self.training:
            return out
        classes = self.hparams["num_classes"]
        boxes = predictions(self.network, out, classes, images)
        segments = KINDS[self.hparams["kind"]] == "segment"
        return with_prototypes(boxes, out, classes) if segments else boxes

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and log its parts."""
        images, targets = batch
        check_targets(targets)
        if KINDS[self.hparams["kind"]] == "segment" and "masks" not in targets:
            raise ValueError(
                "the data deliver boxes without masks, and the network segments: choose "
                "data=ultralytics (polygons as masks), or weights of a detector"
            )
        check_channels(images.shape[1], self.hparams["in_channels"])
        total, parts = self._loss(images, targets)
        self.log_losses(total / images.shape[0], parts, images.shape[0])
        return total

    def on_test_epoch_end(self) -> None:
        """Log test/map50 and test/map50_95, and what the package's own validator says."""
        super().on_test_epoch_end()
        data: Any = getattr(self.trainer, "datamodule", None)
        layout = getattr(data, "layout", None)
        if not self.hparams["their_validator"] or not isinstance(layout, YoloLayout):
            return
        found: list[Any] = [None]
        if self.trainer.is_global_zero:
            split = "test" if "test" in layout.entries else "val"
            with tempfile.TemporaryDirectory() as folder:
                path = write_data_yaml(whole_paths(layout), Path(folder) / "data.yaml")
                size = self.hparams["image_size"]
                found = [their_figures(self.network, path, size, split, data.batch_size)]
        if self.trainer.world_size > 1:
            torch.distributed.broadcast_object_list(found, src=0)
        self.log_dict({f"test/ultralytics_{name}": value for name, value in found[0].items()})

    def _loss(self, images: Tensor, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute their loss, summed over the batch, and its parts, as means."""
        network: Any = self.network
        batch = their_batch(images, targets)
        network.criterion = self._their_criterion(images.device)
        try:
            # The transformer denoises the targets on the way: its loss runs the network itself.
            ready = () if is_transformer(network) else (network(images),)
            loss, items = network.loss(batch, *ready)
        finally:
            # Not kept there: it is no part of the network, its copies and files.
            del network.criterion
        if is_transformer(network):
            loss = loss * images.shape[0]
        return loss.sum(), named_parts(items)

    def _their_criterion(self, device: torch.device) -> Any:
        """Return the criterion of the network for this epoch.

        That of end-to-end heads changes from epoch to epoch; counted from the beginning, so that
        a resumed run has the same.
        """
        trainer = trainer_of(self)
        epoch = 0 if trainer is None else trainer.current_epoch
        if self._criterion is None or self._criterion[1:] != (device, epoch):
            network: Any = self.network
            limit = None if trainer is None else trainer.max_epochs
            network.args = self._settings(epochs=max(limit or 1, 1))
            criterion = network.init_criterion()
            for _ in range(epoch if hasattr(criterion, "update") else 0):
                criterion.update()
            self._criterion = criterion, device, epoch
        return self._criterion[0]

    def _settings(self, epochs: int) -> Any:
        gains = {"box": "box_gain", "cls": "class_gain", "dfl": "dfl_gain"}
        values = {theirs: float(self.hparams[own]) for theirs, own in gains.items()}
        return settings_of(KINDS[self.hparams["kind"]], epochs=epochs, **values)

    @property
    def suppression_iou(self) -> float:
        """Overlap of two boxes of a class above which the weaker is dropped; 1: none is."""
        return 1.0 if chooses(self.network) else float(self.hparams["nms_iou"])


def _built_of(
    found: NetworkFile | None, name: str | None, kind: str | None, yaml: dict[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    """Return what says how the network is built: the file, its name, or a checkpoint."""
    if yaml is not None and kind is not None:
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: pass one of {', '.join(sorted(KINDS))}")
        return kind, yaml
    if found is not None and found.kind is not None and found.yaml is not None:
        if name is not None:
            raise ValueError(f"name={name!r}: the weights say their network; leave name out")
        return found.kind, found.yaml
    if name is None:
        what = "a network to start from" if found is None else "the network of a plain state dict"
        example = "weights=best.pt or name=yolo11n" if found is None else "name=yolo11n besides"
        raise ValueError(f"{what} is missing: pass {example}")
    return network_yaml(name)


def _classes(
    found: NetworkFile | None,
    yaml: dict[str, Any],
    num_classes: int | None,
    names: Sequence[str] | None,
) -> tuple[int, list[str] | None]:
    """Return the number of classes and their names, from the arguments, the file or the YAML."""
    own = int(yaml["nc"])
    if num_classes is None:
        num_classes = own
    named = found.names if found is not None and num_classes == own else None
    if named is not None and named == [str(index) for index in range(len(named))]:
        named = None  # of a network that saw no data
    if names is not None and named is not None and list(map(str, names)) != named:
        warnings.warn(
            f"names={list(names)[:3]}... differ from those of the weights, {named[:3]}...: the "
            "class head keeps the order of the weights",
            stacklevel=3,
        )
    names = named if named is not None and len(named) == num_classes else names
    if names is not None and len(names) != num_classes:
        raise ValueError(
            f"names has {len(names)} entries, num_classes is {num_classes}: pass one name per class"
        )
    return num_classes, None if names is None else [str(name) for name in names]


def _image_size(found: NetworkFile | None) -> int:
    side = 640 if found is None or found.image_size is None else found.image_size
    return math.ceil(side / 32) * 32


def _activations(found: NetworkFile, channels: int) -> dict[str, str]:
    """Return the activations of a file that its YAML does not say; refuse other differences."""
    if found.model is None or found.kind is None or found.yaml is None or found.record is not None:
        return dict(found.activations)
    built = build_network(found.kind, found.yaml, int(found.yaml["nc"]), channels)
    return compare(found.model, built, found.version)


def _place(tensors: dict[str, Tensor]) -> str:
    """Return what stands before ``model.0.`` in the names of a state dict."""
    first = next((name for name in tensors if "model.0." in name), "")
    return first[: first.find("model.0.")] if first else ""
