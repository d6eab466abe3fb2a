"""Data sets in Ultralytics' layout: data.yaml, folders of pictures, folders of label files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lightning_prune.data.augment import Augmentation
from lightning_prune.data.checks import DataError, Findings, OnError, Problem, image_sizes, settle
from lightning_prune.data.dataset import ImageSource
from lightning_prune.data.detection_data import DetectionDataModule
from lightning_prune.data.records import ImageFiles
from lightning_prune.data.yolo_labels import list_images, read_layout, read_records


class YoloFolderDataModule(DetectionDataModule):
    """Pictures and labels in folders, described by a data.yaml.

    `train`, `val` and optionally `test` are folders, lists of folders or .txt lists of pictures;
    labels lie in the folder `labels` beside `images`, one line `class cx cy w h` an object.
    Before the first epoch every picture is decoded and every label read; what is wrong is reported
    once, with names. Every process of a distributed run checks for itself.

    Args:
        root: folder of the data set, or its yaml file.
        image_size: side of the square pictures, in pixels; a multiple of 32.
        batch_size: pictures per batch and process.
        num_workers: worker processes per loader.
        seed: of the order and the augmentation.
        mosaic: probability of a mosaic of four pictures, 0-1.
        close_mosaic: number of last epochs without mosaic.
        degrees: rotation, +- degrees.
        translate: displacement, +- fraction of the picture.
        scale: magnification, 1 +- this.
        shear: shear, +- degrees.
        hsv_h: shift of the hue, +- fraction of the colour circle.
        hsv_s: factor on the saturation, 1 +- this.
        hsv_v: factor on the brightness, 1 +- this.
        fliplr: probability of a left-right flip.
        flipud: probability of an upside-down flip.
        cache_images: hold every resized picture in memory.
        on_error: "raise" stops at damaged pictures and wrong labels, "skip" leaves those out.
        decode_check: decode every picture beforehand; False reads headers only, which is faster
            and misses files that are cut short.
        channels: 3 for RGB, 1 for grey values (a model with `in_channels=1`).

    Raises:
        DataError: the data set is not there, or not described properly.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        root: str | Path,
        image_size: int = 640,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        mosaic: float = 1.0,
        close_mosaic: int = 10,
        degrees: float = 0.0,
        translate: float = 0.1,
        scale: float = 0.5,
        shear: float = 0.0,
        hsv_h: float = 0.015,
        hsv_s: float = 0.7,
        hsv_v: float = 0.4,
        fliplr: float = 0.5,
        flipud: float = 0.0,
        cache_images: bool = False,
        on_error: OnError = "raise",
        decode_check: bool = True,
        channels: Literal[1, 3] = 3,
    ) -> None:
        augmentation = Augmentation(
            mosaic, degrees, translate, scale, shear, hsv_h, hsv_s, hsv_v, fliplr, flipud
        )
        super().__init__(
            image_size, batch_size, num_workers, seed, augmentation, close_mosaic, cache_images,
            channels,
        )  # fmt: skip
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error={on_error!r} is unknown: pass "raise" or "skip"')
        self.on_error = on_error
        self.decode_check = decode_check
        self.layout = read_layout(root)

    @property
    def names(self) -> list[str]:
        """Class names, in the order of their ids."""
        return self.layout.names

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of "train", "val" and "test" exist."""
        return tuple(self.layout.entries)

    def load_splits(self, splits: Iterable[str]) -> dict[str, ImageSource]:
        """Read and check the pictures and labels of some splits.

        Raises:
            DataError: nothing to train on, or problems and on_error is "raise".
        """
        findings, left_out = Findings(), 0
        sources: dict[str, ImageSource] = {}
        for split in splits:
            images = list_images(self.layout, split)
            own = Findings()
            records, unusable = read_records(images, self.num_classes, own)
            sizes = image_sizes(images, self.decode_check, f"checking {split} images")
            for image, size in zip(images, sizes, strict=True):
                if isinstance(size, str):
                    own.add(Problem.CORRUPT_IMAGE, size)
                    unusable.add(image)
            findings.merge(own)
            left_out += len(unusable)
            sources[split] = ImageFiles([each for each in records if each.path not in unusable])
        settle(findings, self.on_error, str(self.layout.file), left_out)
        for split, source in sources.items():
            if not len(source):
                raise DataError(f"{self.layout.file}: no usable picture is left in `{split}`")
        return sources
