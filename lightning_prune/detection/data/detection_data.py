"""What the detection DataModules share: loaders, augmentation, resuming, several processes."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.data.split_data import SplitDataModule
from lightning_prune.detection.data.augment import Augmentation
from lightning_prune.detection.data.collate import Batch, collate
from lightning_prune.detection.data.dataset import DetectionDataset, ImageSource
from lightning_prune.errors import DataError
from lightning_prune.validation import validated


class DetectionDataModule(SplitDataModule):
    """Base of the detection DataModules. Subclasses say where the images come from.

    Batches are `(images, targets)` as `collate` makes them. Training images are augmented;
    validation, test and collection images are letterboxed only. The training order and every
    augmentation depend on (seed, epoch, index) alone, and the training loader continues in the
    middle of an epoch after a resume. Ranks of a distributed run share the images by themselves;
    Lightning adds no sampler of its own.

    Args:
        image_size: Side of the square images, in pixels; a multiple of 32.
        batch_size: Images per batch and process.
        num_workers: Worker processes per loader; 0 loads in the main process.
        seed: Of the order and the augmentation.
        augmentation: How training images are varied.
        close_mosaic: Number of last epochs without mosaic.
        cache_images: Hold every resized image in memory.
        channels: 3 for RGB, 1 for grey values.
    """

    @validated
    def __init__(
        self,
        image_size: ImageSize,
        batch_size: Count,
        num_workers: Workers,
        seed: NonNegative,
        augmentation: Augmentation,
        close_mosaic: NonNegative = 0,
        cache_images: bool = False,
        channels: Literal[1, 3] = 3,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.image_size = image_size
        self.augmentation = augmentation
        self.close_mosaic = close_mosaic
        self.cache_images = cache_images
        self.channels = channels

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Return the class names, in the order of their ids; known before `setup`."""

    @property
    def num_classes(self) -> int:
        """Return the number of classes; known before `setup`."""
        return len(self.names)

    @abstractmethod
    def load_splits(self, splits: Iterable[str]) -> dict[str, ImageSource]:
        """Load and check the images of some splits.

        Raises:
            DataError: the data cannot be trained on.
        """

    @property
    def collate(self) -> Callable[[Any], Batch]:
        """Return ``collate``."""
        return collate

    def load_datasets(self, splits: Sequence[str]) -> dict[str, DetectionDataset]:
        """Load and check some splits, letterboxed.

        Raises:
            DataError: the data cannot be trained on.
        """
        found = {}
        for split, source in self.load_splits(splits).items():
            if split == "train" and not any(len(source.objects(i)[0]) for i in range(len(source))):
                raise DataError("no object in any training image: there is nothing to learn")
            found[split] = DetectionDataset(
                source, self.image_size, cache=self.cache_images, channels=self.channels
            )
        return found

    def training_dataset(self) -> DetectionDataset:
        """Return the training images, augmented."""
        dataset: DetectionDataset = self.dataset("train")
        return replace(
            dataset,
            augmentation=self.augmentation,
            seed=self.seed,
            mosaic_ends=self._mosaic_ends(),
        )

    def _mosaic_ends(self) -> int | None:
        epochs = self.trainer.max_epochs if self.trainer is not None else None
        if epochs is None or epochs < 0:
            return None
        return max(0, epochs - self.close_mosaic)
