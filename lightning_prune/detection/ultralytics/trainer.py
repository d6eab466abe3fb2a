"""Their trainers for pruned networks: they train the network of the file, not one of its YAML."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_prune.detection.ultralytics.network_yaml import PRUNED
from lightning_prune.detection.ultralytics.package import their_module

_Detection: Any = their_module("models.yolo.detect").DetectionTrainer
_Segmentation: Any = their_module("models.yolo.segment").SegmentationTrainer
_Transformer: Any = their_module("models.rtdetr.train").RTDETRTrainer


class _KeepsWidths:
    """Take the pruned network itself where their trainer builds one of its YAML."""

    data: dict[str, Any]

    def get_model(
        self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> Any:
        """Return the network to train: that of the file, if it was pruned."""
        yaml = getattr(weights, "yaml", None)
        if weights is None or not isinstance(yaml, Mapping) or PRUNED not in yaml:
            return super().get_model(cfg, weights, verbose)  # type: ignore[misc]
        classes = int(self.data["nc"])
        if classes != int(yaml["nc"]):
            raise ValueError(
                f"the data have {classes} classes, the pruned network {yaml['nc']}: train the "
                "dense one on them, and prune it then"
            )
        network = copy.deepcopy(weights).float()
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        return network.train()


class PrunedDetectionTrainer(_KeepsWidths, _Detection):  # type: ignore[misc]
    """Their ``DetectionTrainer``, which keeps the widths of a pruned network."""


class PrunedSegmentationTrainer(_KeepsWidths, _Segmentation):  # type: ignore[misc]
    """Their ``SegmentationTrainer``, which keeps the widths of a pruned network."""


class PrunedRTDETRTrainer(_KeepsWidths, _Transformer):  # type: ignore[misc]
    """Their ``RTDETRTrainer``, which keeps the widths of a pruned network."""
