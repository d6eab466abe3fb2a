"""Data sets that the installed `ultralytics` package reads, masks and all, as batches of ours."""

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lightning_prune.annotations import Between
from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.data.sampler import Draw
from lightning_prune.data.split_data import SplitDataModule
from lightning_prune.detection.data.yolo_layout import read_layout
from lightning_prune.detection.ultralytics.data_yaml import whole_paths
from lightning_prune.detection.ultralytics.package import quiet, settings_of, their_module
from lightning_prune.detection.ultralytics.their_batch import our_batch
from lightning_prune.errors import DataError
from lightning_prune.validation import validated

Fraction = Annotated[float, Between(0, 1)]


class UltralyticsDataModule(SplitDataModule):
    """Images with boxes, and masks where the task is to segment, read by their own data set.

    Batches are ``(images, targets)`` as detectors here take them; ``targets`` also has what the
    loss of the task reads, such as ``masks``. What is drawn for an image depends on (seed, epoch,
    index) alone, so that a run resumes in the middle of an epoch; mosaics, for which their data
    set keeps a buffer of what it has loaded before, are left out. It writes ``.cache`` files
    beside the labels, as their trainers do.

    Args:
        root: The ``data.yaml``, or the folder that it is in.
        task: Which labels are read, detect or segment.
        image_size: Side of the square images, in pixels; a multiple of 32.
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader; 0 loads in the main process.
        seed: Of the order and the augmentation.
        hsv_h: Change of the hue, a fraction of the circle.
        hsv_s: Change of the saturation, as a fraction.
        hsv_v: Change of the brightness, as a fraction.
        translate: Shift, as a fraction of the side.
        scale: Change of size, as a fraction.
        fliplr: Probability that an image is mirrored.
        flipud: Probability that it is turned upside down.

    Raises:
        DataError: the data set is not there, or not described properly.
        ModuleNotFoundError: the package is not installed.
    """

    @validated
    def __init__(
        self,
        root: str | Path,
        task: Literal["detect", "segment"] = "segment",
        image_size: ImageSize = 640,
        batch_size: Count = 16,
        num_workers: Workers = 0,
        seed: NonNegative = 0,
        hsv_h: Fraction = 0.015,
        hsv_s: Fraction = 0.7,
        hsv_v: Fraction = 0.4,
        translate: Fraction = 0.1,
        scale: Fraction = 0.5,
        fliplr: Fraction = 0.5,
        flipud: Fraction = 0.0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.task = task
        self.channels = 3
        self.image_size = image_size
        self.layout = read_layout(root)
        if self.layout.note is not None:
            rank_zero_warn(self.layout.note)
        self.description = whole_paths(self.layout)
        self.settings = settings_of(
            task, imgsz=image_size, mosaic=0.0, mixup=0.0, hsv_h=float(hsv_h), hsv_s=float(hsv_s),
            hsv_v=float(hsv_v), translate=float(translate), scale=float(scale),
            fliplr=float(fliplr), flipud=float(flipud),
        )  # fmt: skip

    @property
    def names(self) -> list[str]:
        """Return the class names, in the order of their ids; known before `setup`."""
        return self.layout.names

    @property
    def num_classes(self) -> int:
        """Return the number of classes; known before `setup`."""
        return len(self.names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""
        return tuple(self.layout.entries)

    @property
    def collate(self) -> Callable[[Any], Any]:
        """Return ``collate``."""
        return collate

    def load_datasets(self, splits: Sequence[str]) -> dict[str, "_Seeded"]:
        """Read the labels of some splits; their images are letterboxed.

        Raises:
            DataError: a split has no image that can be read, or labels of another task.
        """
        return {split: self._built(split, "val") for split in splits}

    def training_dataset(self) -> "_Seeded":
        """Return the training images, augmented."""
        return self._built("train", "train")

    def _built(self, split: str, mode: str) -> "_Seeded":
        data = {**self.description, "channels": self.channels}
        try:
            with quiet():
                found = their_module("data").build_yolo_dataset(
                self.settings, self.description[split], self.batch_size, data, mode=mode,
                rect=False, stride=32,
            )  # fmt: skip
        except (OSError, AssertionError, ValueError, TypeError, RuntimeError) as error:
            reason = re.sub(r"\x1b\[\d+m", "", str(error).splitlines()[0])
            raise DataError(f"{self.layout.file}, `{split}`: {reason}") from error
        return _Seeded(found, self.seed)


class _Seeded(Dataset[Any]):
    """Their data set with what it draws from global generators seeded for each image."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, index = key if isinstance(key, tuple) else Draw(0, key)
        python, numpy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            state = np.random.SeedSequence((self.seed, epoch, index)).generate_state(3)
            random.seed(int(state[0]))
            np.random.seed(int(state[1]))
            torch.manual_seed(int(state[2]))
            try:
                return self.dataset[index]
            finally:
                random.setstate(python)
                np.random.set_state(numpy)


def collate(samples: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Make a batch of samples as they do, under the names of this project."""
    return our_batch(their_module("data").YOLODataset.collate_fn(list(samples)))
