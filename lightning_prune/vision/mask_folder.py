"""Data sets of images and masks in folders, for segmentation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning_prune.annotations import Between
from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.data.checks import Findings, OnError
from lightning_prune.data.split_data import SplitDataModule
from lightning_prune.errors import DataError
from lightning_prune.validation import validated
from lightning_prune.vision.mask_augment import Chance, Color, Degrees, MaskAugmentation, Part
from lightning_prune.vision.mask_checks import ADVICE, usable_pairs
from lightning_prune.vision.mask_dataset import Batch, MaskDataset, collate
from lightning_prune.vision.mask_file import MaskReading
from lightning_prune.vision.mask_layout import find_splits, pair_up
from lightning_prune.vision.mask_names import read_classes


class MaskFolderData(SplitDataModule):
    """Images and masks in folders: every pixel of a mask is the class of that pixel.

    ``root/train/images`` and ``root/train/masks``, or ``root/images/train`` and
    ``root/masks/train``; val and optionally test alike. The mask of ``x.jpg`` is ``x.png``: grey
    values or indices of a palette are classes, ``ignore_index`` does not count. Before the first
    epoch every file is read; what is wrong or left out is reported once, with names. Training
    images are varied, the others letterboxed only; padding does not count. The training order and
    every variation depend on (seed, epoch, index) alone.

    Args:
        root: Folder of the data set.
        image_size: Side of the square images, in pixels; a multiple of 32.
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader.
        seed: Of the order and the augmentation.
        names: Class names in the order of their ids, the background included; None: those of
            ``data.yaml`` (``names``) or ``classes.txt`` in ``root``.
        binary: Read any value but 0 as class 1, as in masks of 0 and 255.
        colors: Name -> [red, green, blue], for colour masks; ``ignore``: the colour of pixels that
            do not count. None: values are classes.
        ignore_index: Value of pixels that do not count.
        on_error: "raise" stops at damaged files and wrong masks, "skip" leaves those images out.
        decode_check: Decode every image beforehand; False reads their headers only.
        channels: 3 for RGB, 1 for grey values (a model with ``in_channels=1``).
        scale: Magnification of training images, uniform in 1 +- this, cropped or padded.
        translate: Displacement, uniform in +- this fraction of the image's side.
        degrees: Rotation, uniform in +- this many degrees.
        fliplr: Probability of a left-right flip.
        flipud: Probability of an upside-down flip.
        brightness: Factor on the brightness, uniform in 1 +- this.
        saturation: Factor on the saturation, uniform in 1 +- this.

    Raises:
        DataError: the data set is not there, or nothing names its classes.
        ValueError: an argument out of range.
    """

    @validated
    def __init__(
        self,
        root: str | Path,
        image_size: ImageSize = 512,
        batch_size: Count = 8,
        num_workers: Workers = 0,
        seed: NonNegative = 0,
        names: list[str] | None = None,
        binary: bool = False,
        colors: dict[str, list[int]] | None = None,
        ignore_index: Annotated[int, Between(1, 65535, "a value in masks")] = 255,
        on_error: OnError = "raise",
        decode_check: bool = True,
        channels: Literal[1, 3] = 3,
        scale: Part = 0.5,
        translate: Part = 0.1,
        degrees: Degrees = 0.0,
        fliplr: Chance = 0.5,
        flipud: Chance = 0.0,
        brightness: Color = 0.4,
        saturation: Color = 0.4,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.root = Path(root).expanduser()
        self.image_size = image_size
        self.ignore_index = ignore_index
        self.on_error = on_error
        self.decode_check = decode_check
        self.channels = channels
        self.augmentation = MaskAugmentation(
            scale, translate, degrees, fliplr, flipud, brightness, saturation
        )
        self.folders = find_splits(self.root)
        classes = read_classes(self.root, names, colors, binary)
        self.names = classes.names
        if ignore_index < len(self.names):
            raise DataError(
                f"ignore_index={ignore_index} is the class {self.names[ignore_index]!r}: pass a "
                f"value from {len(self.names)} on"
            )
        self.reading = MaskReading(len(self.names), ignore_index, binary, classes.colors)

    @property
    def num_classes(self) -> int:
        """Return the number of classes, the background included."""
        return len(self.names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""
        return tuple(self.folders)

    @property
    def collate(self) -> Callable[[Any], Batch]:
        """Return ``collate``."""
        return collate

    def load_datasets(self, splits: Sequence[str]) -> dict[str, MaskDataset]:
        """Load and check some splits, letterboxed.

        Raises:
            DataError: nothing to train on, or problems and on_error is "raise".
        """
        findings = Findings(ADVICE)
        pairs = {split: pair_up(self.folders[split], findings) for split in splits}
        records = usable_pairs(
            pairs, self.reading, findings, str(self.root), self.on_error, self.decode_check
        )
        return {
            split: MaskDataset(found, self.reading, self.image_size, channels=self.channels)
            for split, found in records.items()
        }

    def training_dataset(self) -> MaskDataset:
        """Return the training images and masks, varied."""
        dataset: MaskDataset = self.dataset("train")
        return replace(dataset, augmentation=self.augmentation, seed=self.seed)
