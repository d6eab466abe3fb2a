"""Data sets with COCO's annotation files."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

from lightning_prune.data.augment import Augmentation
from lightning_prune.data.checks import DataError, Findings, OnError, Problem, image_sizes, settle
from lightning_prune.data.coco_annotations import CocoFile, coco_records, read_coco
from lightning_prune.data.dataset import ImageSource
from lightning_prune.data.detection_data import DetectionDataModule
from lightning_prune.data.records import ImageFiles


class CocoJsonDataModule(DetectionDataModule):
    """Pictures with COCO annotations (`bbox` = x, y, width, height in pixels).

    Classes are the categories of the training file, sorted by id and numbered from 0. Crowd regions
    are left out. Pictures and annotations are checked before the first epoch as in
    `YoloFolderDataModule`.

    Args:
        root: folder the other paths are relative to.
        train_annotations: training annotation file.
        val_annotations: validation annotation file.
        test_annotations: test annotation file, or None: the validation split is tested.
        train_images: folder of the training pictures.
        val_images: folder of the validation pictures.
        test_images: folder of the test pictures; None = that of the validation pictures.
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
        on_error: "raise" stops at damaged pictures and wrong annotations, "skip" leaves those out.
        decode_check: decode every picture beforehand; False reads headers only.
        channels: 3 for RGB, 1 for grey values (a model with `in_channels=1`).

    Raises:
        DataError: the data set is not there.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        root: str | Path,
        train_annotations: str = "annotations/instances_train2017.json",
        val_annotations: str = "annotations/instances_val2017.json",
        test_annotations: str | None = None,
        train_images: str = "train2017",
        val_images: str = "val2017",
        test_images: str | None = None,
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

    @property
    def names(self) -> list[str]:
        """Category names, sorted by category id."""
        return list(self._train_file.categories.values())

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of "train", "val" and "test" exist."""
        return tuple(self._files)

    def load_splits(self, splits: Iterable[str]) -> dict[str, ImageSource]:
        """Read and check the pictures and annotations of some splits.

        Raises:
            DataError: nothing to train on, or problems and on_error is "raise".
        """
        class_of = {category: index for index, category in enumerate(self._train_file.categories)}
        findings, left_out = Findings(), 0
        sources: dict[str, ImageSource] = {}
        for split in splits:
            path = self.root / self._files[split]
            file = self._train_file if split == "train" else read_coco(path)
            records, sizes, unusable = coco_records(
                file, self.root / self._folders[split], class_of, findings
            )
            paths = [record.path for record in records]
            found = image_sizes(paths, self.decode_check, f"checking {split} images")
            for image, size in zip(paths, found, strict=True):
                if isinstance(size, str):
                    findings.add(Problem.CORRUPT_IMAGE, size)
                elif size != sizes[image]:
                    findings.add(
                        Problem.SIZE_DIFFERS, f"{image}: {size}, annotated {sizes[image]} (h, w)"
                    )
                else:
                    continue
                unusable.add(image)
            left_out += len(unusable)
            sources[split] = ImageFiles([each for each in records if each.path not in unusable])
        settle(findings, self.on_error, str(self.root), left_out)
        for split, source in sources.items():
            if not len(source):
                raise DataError(f"{self.root}: no usable picture is left in `{split}`")
        return sources
