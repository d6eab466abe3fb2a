"""Data sets that the installed `ultralytics` package reads, masks and all, as batches of ours."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_prune.annotations import Between
from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.resumable_data import ResumableDataModule
from lightning_prune.data.sampler import Draw
from lightning_prune.detection.ultralytics.data_yaml import read_data_yaml
from lightning_prune.detection.ultralytics.package import settings_of, their_module
from lightning_prune.detection.ultralytics.their_batch import our_batch
from lightning_prune.errors import DataError
from lightning_prune.validation import validated

Fraction = Annotated[float, Between(0, 1)]
_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class UltralyticsDataModule(ResumableDataModule):
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
        self.image_size = image_size
        self.description = read_data_yaml(root)
        self.settings = settings_of(
            task, imgsz=image_size, mosaic=0.0, mixup=0.0, hsv_h=float(hsv_h), hsv_s=float(hsv_s),
            hsv_v=float(hsv_v), translate=float(translate), scale=float(scale),
            fliplr=float(fliplr), flipud=float(flipud),
        )  # fmt: skip
        self._datasets: dict[tuple[str, str], Dataset[Any]] = {}

    @property
    def names(self) -> list[str]:
        """Return the class names, in the order of their ids; known before `setup`."""
        names = self.description["names"]
        return [str(n) for n in (names.values() if isinstance(names, dict) else names)]

    @property
    def num_classes(self) -> int:
        """Return the number of classes; known before `setup`."""
        return len(self.names)

    @property
    def channels(self) -> int:
        """Return the channels of an image."""
        return int(self.description.get("channels", 3))

    @property
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""
        return tuple(split for split in ("train", "val", "test") if split in self.description)

    def setup(self, stage: str) -> None:
        """Read the labels of what a stage needs, once."""
        for split in _STAGES[stage]:
            self.dataset(split)

    def dataset(self, split: str, mode: Literal["train", "val"] = "val") -> Dataset[Any]:
        """Return a split as in training (augmented) or as in evaluation (letterboxed).

        Raises:
            DataError: it has no image that can be read.
        """
        split = "val" if split == "test" and "test" not in self.splits else split
        if (split, mode) not in self._datasets:
            data = {**self.description, "nc": self.num_classes, "channels": self.channels}
            data["names"] = dict(enumerate(self.names))
            try:
                found = their_module("data").build_yolo_dataset(
                    self.settings, self.description[split], self.batch_size, data, mode=mode,
                    rect=False, stride=32,
                )  # fmt: skip
            except (FileNotFoundError, OSError, AssertionError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise DataError(f"{self.description[split]}: {reason}") from error
            self._datasets[split, mode] = _Seeded(found, self.seed)
        return self._datasets[split, mode]

    def train_dataloader(self) -> ResumableLoader:
        """Return augmented training images in a random order that a checkpoint can restore."""
        dataset: Any = self.dataset("train", "train")
        return self.training_loader(dataset, dataset.collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation images, letterboxed, each exactly once."""
        return self._evaluation("val", persistent=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test images, letterboxed; those of validation where there are none."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the images of `test_dataloader`."""
        return self.test_dataloader()

    def collection_dataloader(self) -> DataLoader[Any]:
        """Return training images as in evaluation: not shuffled, letterboxed, no augmentation."""
        return self._evaluation("train")

    def _evaluation(self, split: str, persistent: bool = False) -> DataLoader[Any]:
        dataset: Any = self.dataset(split)
        return self.evaluation_loader(dataset, dataset.collate, persistent)


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

    def collate(self, samples: Sequence[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Collate samples as they do, under the names of this project."""
        return our_batch(self.dataset.collate_fn(list(samples)))
