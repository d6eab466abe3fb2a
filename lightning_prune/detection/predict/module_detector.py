"""A detector in PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.detection.predict.detector import class_tuple
from lightning_prune.detection.predict.options import PredictionOptions
from lightning_prune.graph.forward_pass import untouched


@dataclass
class ModuleDetector:
    """A detector that is a module, dense or cut, on any device and in any mode.

    Args:
        module: In eval mode it gives (B, 4 + classes, A).
        names: Of its classes.
        channels: Of its images.
        size: Height and width of the images it was trained on.
    """

    module: nn.Module
    names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    batch: int | None = None
    free: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        """See ``Detector``."""
        weight = next(p for p in self.module.parameters() if p.is_floating_point())
        out: Tensor = self.module(images.to(weight.device, weight.dtype))
        return out.float()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Set eval mode, without gradients; mode and random states come back."""
        with untouched(self.module), torch.no_grad():
            self.module.eval()
            yield


def detector_of(module: nn.Module) -> ModuleDetector:
    """Return a ``DetectionModule`` as a ``Detector``.

    Raises:
        ValueError: its images have other channels than 1 or 3.
    """
    hparams: Any = module.hparams
    channels = hparams["in_channels"]
    if channels not in (1, 3):
        raise ValueError(
            f"the network takes images of {channels} channels, and files are read as grey or RGB: "
            "call the module on tensors, and non_maximum_suppression on what it gives"
        )
    names = class_tuple(hparams["names"], hparams["num_classes"])
    return ModuleDetector(module, names, channels, (hparams["image_size"], hparams["image_size"]))


def options_of(module: nn.Module) -> PredictionOptions:
    """Return the thresholds among the hyper-parameters of a ``DetectionModule``."""
    hparams: Any = module.hparams
    return PredictionOptions(
        hparams["object_confidence"], hparams["nms_iou"], hparams["max_detections"]
    )
