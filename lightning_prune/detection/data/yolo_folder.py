"""Data sets in Ultralytics' layout: data.yaml, folders of images, folders of label files."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.data.checks import Findings, OnError
from lightning_prune.detection.data.augment import PHOTOS
from lightning_prune.detection.data.dataset import ImageSource
from lightning_prune.detection.data.detection_data import DetectionDataModule
from lightning_prune.detection.data.records import ImageRecord
from lightning_prune.detection.data.usable_images import usable_images
from lightning_prune.detection.data.with_strengths import with_strengths
from lightning_prune.detection.data.yolo_images import list_images, places
from lightning_prune.detection.data.yolo_labels import note_labels_without_image, read_records
from lightning_prune.detection.data.yolo_layout import read_layout
from lightning_prune.validation import validated


class YoloFolderDataModule(DetectionDataModule):
    """Images and labels in folders, described by a data.yaml.

    `train`, `val` and optionally `test` are folders, lists of folders or .txt lists of images;
    labels are in the folder `labels` beside `images`, one line `class cx cy w h` an object. Of
    polygons the bounding box is taken, of poses (`kpt_shape`) the box; docs/data.md has the rest.
    Before the first epoch every image is decoded and every label read; what is wrong or left out
    is reported once, with names. Every process of a distributed run checks for itself.

    Args:
        root: Folder of the data set, or its yaml file.
        image_size: Side of the square images, in pixels; a multiple of 32.
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader.
        seed: Of the order and the augmentation.
        close_mosaic: Number of last epochs without mosaic.
        cache_images: Hold every resized image in memory.
        on_error: "raise" stops at damaged images and wrong labels, "skip" leaves those out.
        decode_check: Decode every image beforehand; False reads headers only, which is faster
            and misses files that are cut short.
        channels: 3 for RGB, 1 for grey values (a model with `in_channels=1`).
        strengths: Those of `Augmentation`, each by its own name (`mosaic=0.5`).

    Raises:
        DataError: the data set is not there, or not described properly.
        ValueError: an argument out of range.
    """

    @validated
    @with_strengths(PHOTOS)
    def __init__(
        self,
        root: str | Path,
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
        self.layout = read_layout(root)
        if self.layout.note is not None:
            rank_zero_warn(self.layout.note)

    @property
    def names(self) -> list[str]:
        """Return the class names, in the order of their ids."""
        return self.layout.names

    @property
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""
        return tuple(self.layout.entries)

    def load_splits(self, splits: Iterable[str]) -> dict[str, ImageSource]:
        """Read and check the images and labels of some splits.

        Raises:
            DataError: nothing to train on, or problems and on_error is "raise".
        """
        findings = Findings()
        records: dict[str, list[ImageRecord]] = {}
        unusable: dict[str, set[Path]] = {}
        for split in splits:
            images = list_images(self.layout, split, findings)
            if all(os.path.isdir(place) for place in places(self.layout, split)):
                note_labels_without_image(images, findings)
            records[split], unusable[split] = read_records(
                images, self.num_classes, findings, self.layout.key_points
            )
        return usable_images(
            records, unusable, findings, str(self.layout.file), self.on_error, self.decode_check
        )
