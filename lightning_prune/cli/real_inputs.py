"""Real inputs that exported files are calibrated on and judged by."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_prune.cli.build import build
from lightning_prune.data.images import ImageError, read_image
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.detector_judge import DetectorJudge
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.predict.detect_images import placed_image
from lightning_prune.detection.predict.sources import find_sources
from lightning_prune.errors import ConfigError
from lightning_prune.export.bundle.gate import Judge
from lightning_prune.export.bundle.output_judge import OutputJudge, input_arrays
from lightning_prune.graph.model_inputs import model_inputs
from lightning_prune.runs.configuration.consent import check_targets_of
from lightning_prune.runs.configuration.run_facts import RunFacts
from lightning_prune.surgery.compare import noise_like

JUDGED = 256
"""Images that files are judged by at most."""
_BATCH = 8
_NOISE = 3


@dataclass
class RealInputs:
    """What files are calibrated on and judged by.

    Attributes:
        calibration: Inputs, an array for each tensor that the network takes.
        judged: Batches of inputs.
        targets: Of each batch that is judged, where they are known.
        data: What is judged, in words.
    """

    calibration: list[Sequence[np.ndarray]] = field(default_factory=list)
    judged: list[Any] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    data: str = "validation images"

    def judge(
        self,
        module: L.LightningModule,
        tolerance: float | None,
        accept_loss: float | None,
        dense: DetectorModule | None = None,
    ) -> Judge:
        """Return what compares files with the checkpoint on these inputs."""
        targets = self.targets or None
        limits = (self.data, tolerance, accept_loss)
        if isinstance(module, DetectorModule):
            return DetectorJudge(module, self.judged, targets, *limits, dense)
        return OutputJudge(module, self.judged, targets, *limits)


def noise_inputs(example: Any, batch: int | None) -> RealInputs:
    """Return seeded noise to judge by, where no image is given."""
    from lightning_prune.export.batches import with_batch

    size = batch or _NOISE
    judged = [noise_like(with_batch(example, size), seed) for seed in (0, 1)]
    return RealInputs(judged=judged, data="samples of seeded noise")


def inputs_of_run(
    module: L.LightningModule, folder: Path, limit: int, batch: int | None, side: int | None
) -> RealInputs:
    """Return inputs of a run's data: training images to calibrate on, validation images to judge.

    Both as in evaluation, without augmentation.

    Args:
        module: Which takes them.
        folder: Of the run.
        limit: How many are for calibration, at most.
        batch: Number of samples that files take at once; None: any.
        side: Of the images; None: that of the run.

    Raises:
        ConfigError: the folder says nothing of its data, or not in a way that may be built.
    """
    facts = RunFacts.of(folder)
    node = facts.get("data")
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(
            f"{folder} is no run (no config.yaml with data) and no folder of images: pass the "
            "folder of a run of train, or a folder of images"
        )
    check_targets_of(facts.folder / "config.yaml", node)
    if side is not None and "image_size" in node:
        node = node | {"image_size": side}
    data = build(OmegaConf.create(node), "data")
    return inputs_of_data(module, data, limit, batch)


def inputs_of_yaml(
    module: DetectorModule, path: Path, limit: int, batch: int | None, side: int
) -> RealInputs:
    """Return inputs of a labelled set of images; see ``inputs_of_run``."""
    data = YoloFolderDataModule(str(path), image_size=side, batch_size=_BATCH, num_workers=0)
    if data.num_classes > int(module.hparams["num_classes"]):
        raise ConfigError(
            f"--data {path} has {data.num_classes} classes, the detector "
            f"{module.hparams['num_classes']}"
        )
    return inputs_of_data(module, data, limit, batch)


def inputs_of_data(
    module: L.LightningModule, data: Any, limit: int, batch: int | None
) -> RealInputs:
    """Return inputs of a data module; see ``inputs_of_run``."""
    data.setup("fit")
    make = getattr(data, "collection_dataloader", None) or data.train_dataloader
    found = RealInputs()
    for one in _evenly(make(), limit, batch or 1, fixed=batch is not None):
        found.calibration.append(input_arrays(model_inputs(module, one)))
    for one in _evenly(data.val_dataloader(), JUDGED, batch or _BATCH, fixed=batch is not None):
        found.judged.append(model_inputs(module, one))
        target = _target(one)
        if target is not None:
            found.targets.append(target)
    if len(found.targets) != len(found.judged):
        found.targets.clear()
    if not found.judged:
        raise ConfigError(f"the data have fewer than {batch or 1} validation images to judge by")
    return found


def inputs_of_images(
    module: DetectorModule, words: Sequence[str], limit: int, batch: int | None, side: int
) -> RealInputs:
    """Return images without labels: every fifth judges, the others are for calibration.

    Raises:
        ConfigError: there are fewer than five that can be read, or files take more at once.
    """
    sources, _ = find_sources(words)
    paths = [source.path for source in sources if not source.video]
    # A folder in the order of its names may begin with one scene.
    random.Random(0).shuffle(paths)
    read: list[Tensor] = []
    for path in paths:
        if len(read) >= limit + limit // 4:
            break
        try:
            array = read_image(path)
        except ImageError:
            continue
        placed = placed_image(array, side, side, int(module.hparams["in_channels"]))[0]
        read.append(placed.float().div_(255.0))
    return inputs_of_tensors(read, batch)


def inputs_of_tensors(images: Sequence[Tensor], batch: int | None) -> RealInputs:
    """Return images (C, H, W) to calibrate on, and every fifth to judge by."""
    size = batch or 1
    judged = list(images[4::5])
    fitted = [image for place, image in enumerate(images) if place % 5 != 4]
    if len(judged) < size:
        raise ConfigError(
            f"{len(images)} images can be read: give at least {5 * size}, a fifth of them judges"
        )
    found = RealInputs(data="images that were held back")
    found.calibration = [[one.numpy()] for one in _stacked(fitted, size, batch is not None)]
    found.judged = _stacked(judged, batch or _BATCH, batch is not None)
    return found


def _stacked(images: Sequence[Tensor], size: int, fixed: bool) -> list[Tensor]:
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    return [torch.stack(list(part)) for part in parts if len(part) == size or not fixed]


def _evenly(loader: Any, count: int, size: int, fixed: bool) -> Iterable[Any]:
    """Return batches of a size with so many samples at most, from all over the data set."""
    dataset = getattr(loader, "dataset", None)
    if not isinstance(loader, DataLoader) or isinstance(dataset, IterableDataset):
        return islice(loader, max(1, count // size))
    length = len(dataset)  # type: ignore[arg-type]
    places = torch.linspace(0, length - 1, min(count, length)).round().long().tolist()
    part = Subset(loader.dataset, places)
    return DataLoader(part, batch_size=size, collate_fn=loader.collate_fn, drop_last=fixed)


def _target(batch: Any) -> Any:
    """Return what a batch says of its inputs: boxes of a detector, or labels of a classifier."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        return None
    target = batch[1]
    if isinstance(target, Mapping) and "box" in target:
        return target
    labels = isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()
    return target if labels else None
