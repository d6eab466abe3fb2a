"""Data sets with COCO's annotation files."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.data.checks import Findings, OnError
from lightning_prune.detection.data.augment import PHOTOS
from lightning_prune.detection.data.coco_annotations import coco_records
from lightning_prune.detection.data.coco_file import ADVICE, CocoFile, read_coco, without_collection
from lightning_prune.detection.data.dataset import ImageSource
from lightning_prune.detection.data.detection_data import DetectionDataModule
from lightning_prune.detection.data.records import ImageRecord
from lightning_prune.detection.data.usable_images import usable_images
from lightning_prune.detection.data.with_strengths import with_strengths
from lightning_prune.errors import DataError
from lightning_prune.validation import validated


class CocoJsonDataModule(DetectionDataModule):
    """Images with COCO annotations (`bbox` = x, y, width, height in pixels).

    Classes are the categories of the training file, sorted by id and numbered from 0; those of
    other files are matched by name. Crowd regions and boxes without area are left out. Images and
    annotations are checked before the first epoch as in `YoloFolderDataModule`.

    Args:
        root: Folder the other paths are relative to.
        train_annotations: Training annotation file.
        val_annotations: Validation annotation file.
        test_annotations: Test annotation file, or None: the validation split is tested.
        train_images: Folder of the training images.
        val_images: Folder of the validation images.
        test_images: Folder of the test images; None = that of the validation images.
        image_size: Side of the square images, in pixels; a multiple of 32.
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader.
        seed: Of the order and the augmentation.
        close_mosaic: Number of last epochs without mosaic.
        cache_images: Hold every resized image in memory.
        on_error: "raise" stops at damaged images and wrong annotations, "skip" leaves those out.
        decode_check: Decode every image beforehand; False reads headers only.
        channels: 3 for RGB, 1 for grey values (a model with `in_channels=1`).
        strengths: Those of `Augmentation`, each by its own name (`mosaic=0.5`).

    Raises:
        DataError: the data set is not there.
        ValueError: an argument out of range.
    """

    @validated
    @with_strengths(PHOTOS)
    def __init__(
        self,
        root: str | Path,
        train_annotations: str = "annotations/instances_train2017.json",
        val_annotations: str = "annotations/instances_val2017.json",
        test_annotations: str | None = None,
        train_images: str = "train2017",
        val_images: str = "val2017",
        test_images: str | None = None,
        image_size: ImageSize = 640,
        batch_size: Count = 16,
        num_workers: Workers = 0,
        seed: NonNegative = 0,
        close_mosaic: NonNegative = 10,
        cache_images: bool = False,
        on_error: OnError = "raise",
        decode_check: bool = True,
        channels: Literal[1, 3] = 3,
        **strengths: float,
    ) -> None:
        augmentation = replace(PHOTOS, **strengths)
        super().__init__(
            image_size, batch_size, num_workers, seed, augmentation, close_mosaic, cache_images,
            channels,
        )  # fmt: skip
        self.on_error = on_error
        self.decode_check = decode_check
        self.root = Path(root).expanduser().resolve()
        self._files = {"train": train_annotations, "val": val_annotations}
        self._folders = {"train": train_images, "val": val_images}
        if test_annotations is not None:
            self._files["test"] = test_annotations
            self._folders["test"] = val_images if test_images is None else test_images
        for path in [*self._files.values(), *self._folders.values()]:
            if not (self.root / path).exists():
                raise DataError(f"{self.root / path} does not exist: correct the path or the root")

    @cached_property
    def _train_file(self) -> CocoFile:
        return read_coco(self.root / self._files["train"])

    @cached_property
    def names(self) -> list[str]:
        """Return the category names of the training file, sorted by category id."""
        return self._train_file.names

    @property
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""
        return tuple(self._files)

    def load_splits(self, splits: Iterable[str]) -> dict[str, ImageSource]:
        """Read and check the images and annotations of some splits.

        Raises:
            DataError: nothing to train on, or problems and on_error is "raise".
        """
        names = self.names
        findings = Findings(ADVICE)
        records: dict[str, list[ImageRecord]] = {}
        sizes: dict[str, dict[Path, tuple[int, int]]] = {}
        unusable: dict[str, set[Path]] = {}
        for split in splits:
            path = self.root / self._files[split]
            file = self._train_file if split == "train" else read_coco(path)
            folder = self.root / self._folders[split]
            with without_collection():
                records[split], sizes[split], unusable[split] = coco_records(
                    file, folder, self.root, names, findings
                )
        self.__dict__.pop("_train_file", None)  # hundreds of megabytes; `names` stay
        return usable_images(
            records, unusable, findings, str(self.root), self.on_error, self.decode_check, sizes
        )
