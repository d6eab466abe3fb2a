"""Folders of images, a folder for each class: the data of a classifier."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.annotations import Between
from lightning_prune.arguments import Count, NonNegative, Workers
from lightning_prune.data.checks import MANY, Findings, OnError, settle
from lightning_prune.data.image_facts import look_at_images, note_images
from lightning_prune.data.split_data import SplitDataModule
from lightning_prune.errors import DataError
from lightning_prune.validation import validated
from lightning_prune.vision.image_folder_dataset import Batch, LabelledImages, collate
from lightning_prune.vision.image_folder_layout import WHOLE, LabelledFile, read_image_folder
from lightning_prune.vision.image_folder_splits import divide
from lightning_prune.vision.image_folder_views import (
    CropRatio,
    CropScale,
    EvaluationView,
    Interpolation,
    Probability,
    RandomView,
)

Side = Annotated[int | None, Between(8, 16384, "pixels")]
CropFraction = Annotated[
    float | None, Between(0, 1, "the centre's side as a fraction of the shorter side", "(]")
]
Fraction = Annotated[float, Between(0, 1, "a fraction of each class's images", "[)")]


class ImageFolderData(SplitDataModule):
    """Images in folders that are named as their classes.

    ``root/train/CLASS/x.jpg``, ``root/val/...`` (``valid``, ``validation``) and ``root/test/...``;
    or ``root/CLASS/x.jpg`` alone, of which ``val_fraction`` and ``test_fraction`` are held out
    class by class. Classes are those of the training split, sorted by name. Where there is no
    validation split, ``val_fraction`` of the training images is held out; without a test split the
    test is on the validation images.

    Batches are ``(images, labels)``: (B, C, S, S) float32 in [0, 1] and (B,) int64; a classifier
    subtracts its means itself. Training images are random crops, those of evaluation the centre.
    The training order and every crop depend on (seed, epoch, index) alone, and the training loader
    continues in the middle of an epoch after a resume. Ranks of a distributed run share the images
    by themselves.

    Before the first epoch every image is looked at; what is wrong or left out is reported once,
    with names. Every process of a distributed run checks for itself.

    Args:
        root: The folder.
        image_size: Side of the square images, in pixels; None: that of the model, else 224.
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader.
        seed: Of the order and the crops.
        val_fraction: Fraction of each class to validate on, where there is no such folder.
        test_fraction: Fraction to test on, where there are class folders only.
        split_seed: Of what is held out: by itself, so that runs of other seeds are comparable.
        channels: 3 for RGB, 1 for grey values (a model with ``in_channels=1``).
        crop_fraction: Side of the evaluated centre as a fraction of the shorter side; None: that
            of the model, else 0.875.
        interpolation: How images are resized; None: as the model says, else bicubic.
        scale: Fractions of the area that training crops cover.
        ratio: Width / height of training crops.
        fliplr: Probability of a mirrored training image.
        flipud: Probability of one upside down.
        on_error: "raise" stops at damaged images and classes that training lacks, "skip" leaves
            those out.
        decode_check: Decode every image beforehand; False reads headers only, which is faster
            and misses files that are cut short.

    Raises:
        DataError: the folder is not there, or holds no classes.
        ValueError: an argument is out of range.
    """

    @validated
    def __init__(
        self,
        root: str | Path,
        image_size: Side = None,
        batch_size: Count = 32,
        num_workers: Workers = 0,
        seed: NonNegative = 0,
        val_fraction: Annotated[float, Between(0, 1, "a fraction of each class", "()")] = 0.1,
        test_fraction: Fraction = 0.1,
        split_seed: NonNegative = 0,
        channels: Literal[1, 3] = 3,
        crop_fraction: CropFraction = None,
        interpolation: Interpolation | None = None,
        scale: CropScale = (0.08, 1.0),
        ratio: CropRatio = (0.75, 1.3333333),
        fliplr: Probability = 0.5,
        flipud: Probability = 0.0,
        on_error: OnError = "raise",
        decode_check: bool = True,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if val_fraction + test_fraction >= 1:
            raise ValueError(
                f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to "
                "train on: their sum has to be below 1"
            )
        self.image_size = image_size
        self.crop_fraction = crop_fraction
        self.interpolation = interpolation
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.channels = channels
        self.augmentation = RandomView(scale, ratio, fliplr, flipud)
        self.on_error = on_error
        self.decode_check = decode_check
        self.layout = read_image_folder(root)
        self._listed = self._divided()

    @property
    def names(self) -> list[str]:
        """Return the class names, in the order of their labels."""
        return self.layout.names

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    @property
    def in_channels(self) -> int:
        """Return ``channels`` by the name that a classifier has for it."""
        return self.channels

    @property
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""
        return tuple(self._listed)

    @property
    def collate(self) -> Callable[[Any], Batch]:
        """Return ``collate``."""
        return collate

    def dataset(self, split: str) -> LabelledImages:
        """Return the images of a split as in evaluation, looking at them if need be."""
        # The model that says how images are cut may have come since they were looked at.
        dataset: LabelledImages = super().dataset(split)
        return dataclasses.replace(dataset, view=self._view())

    def training_dataset(self) -> LabelledImages:
        """Return the training images, cropped at random."""
        return dataclasses.replace(
            self.dataset("train"), augmentation=self.augmentation, seed=self.seed
        )

    def _view(self) -> EvaluationView:
        """Return what was asked for, then what the model says, then the defaults."""
        model = getattr(self.trainer, "lightning_module", None)
        values: dict[str, Any] = dict(getattr(model, "evaluation_view", None) or {})
        own = {
            "image_size": self.image_size,
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
        }
        values.update({name: value for name, value in own.items() if value is not None})
        return EvaluationView(**values)

    def _divided(self) -> dict[str, list[LabelledFile]]:
        files = self.layout.files
        if WHOLE in files:
            fractions = {"val": self.val_fraction, "test": self.test_fraction}
            held_out = {split: fraction for split, fraction in fractions.items() if fraction}
            parts = divide(files[WHOLE], self.names, held_out, self.split_seed)
        elif "val" not in files:
            held_out = {"val": self.val_fraction}
            parts = files | divide(files["train"], self.names, held_out, self.split_seed)
            rank_zero_info(
                f"{self.layout.root} has no val folder: {len(parts['val'])} of "
                f"{len(files['train'])} training images are held out for validation."
            )
        else:
            return files
        if not parts["val"]:
            raise DataError(
                f"{self.layout.root}: {self.val_fraction:.0%} of so few images leaves none to "
                "validate on: give a larger val_fraction, or a folder val"
            )
        return {split: part for split, part in parts.items() if part}

    def load_datasets(self, splits: Sequence[str]) -> dict[str, LabelledImages]:
        """Return the images of some splits that can be used, having looked at each.

        Raises:
            DataError: nothing is left, or there are problems and on_error is "raise".
        """
        findings, left_out = Findings(), set[Path]()
        first = not self._datasets
        if first:
            findings.merge(self.layout.findings)
        refused = findings.fatal and self.on_error == "raise"
        chosen = {split: self._listed[split] for split in splits}
        if not (refused and sum(map(len, chosen.values())) > MANY):
            for split, files in chosen.items():
                paths = [file.path for file in files]
                facts = look_at_images(paths, self.decode_check, f"checking {split} images")
                left_out |= note_images(paths, facts, findings)
        unknown = sum(self.layout.unusable.values()) if first else 0
        settle(findings, self.on_error, str(self.layout.root), len(left_out) + unknown)
        usable = {
            split: [file for file in files if file.path not in left_out]
            for split, files in chosen.items()
        }
        for split, files in usable.items():
            if not files:
                raise DataError(f"{self.layout.root}: no usable image is left in `{split}`")
        view = self._view()
        return {
            split: LabelledImages(files, view, channels=self.channels)
            for split, files in usable.items()
        }
