"""What the detection DataModules share: loaders, augmentation, resuming, several processes."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.resumable_data import ResumableDataModule
from lightning_prune.detection.data.augment import Augmentation
from lightning_prune.detection.data.collate import Batch, collate
from lightning_prune.detection.data.dataset import DetectionDataset, ImageSource
from lightning_prune.errors import DataError
from lightning_prune.validation import validated

_SPLITS_OF_STAGE = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}


class DetectionDataModule(ResumableDataModule):
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
        self._datasets: dict[str, DetectionDataset] = {}

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Return the class names, in the order of their ids; known before `setup`."""

    @property
    def num_classes(self) -> int:
        """Return the number of classes; known before `setup`."""
        return len(self.names)

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""

    @abstractmethod
    def load_splits(self, splits: Iterable[str]) -> dict[str, ImageSource]:
        """Load and check the images of some splits.

        Raises:
            DataError: the data cannot be trained on.
        """

    def setup(self, stage: str) -> None:
        """Load and check what a stage needs, once."""
        self._require(_SPLITS_OF_STAGE[stage])

    def train_dataloader(self) -> ResumableLoader:
        """Return augmented training images in a random order that a checkpoint can restore."""
        dataset = replace(
            self.dataset("train"),
            augmentation=self.augmentation,
            seed=self.seed,
            mosaic_ends=self._mosaic_ends(),
        )
        return self.training_loader(dataset, collate)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation images, letterboxed, each exactly once."""
        return self._evaluation_loader("val", persistent=True)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test images, letterboxed; those of validation where there are none."""
        if "test" not in self.splits:
            rank_zero_info("The data set has no test split: testing on the validation split.")
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the images of `test_dataloader`."""
        return self.test_dataloader()

    def collection_dataloader(self) -> DataLoader[Batch]:
        """Return training images as in evaluation: not shuffled, letterboxed, no augmentation."""
        return self._evaluation_loader("train")

    def dataset(self, split: str) -> DetectionDataset:
        """Return the images of a split as in evaluation, loading them if need be."""
        self._require([split])
        return self._datasets[self._existing(split)]

    def _existing(self, split: str) -> str:
        return "val" if split == "test" and "test" not in self.splits else split

    def _require(self, splits: Iterable[str]) -> None:
        wanted = dict.fromkeys(self._existing(split) for split in splits)
        missing = [split for split in wanted if split not in self._datasets]
        for split, source in self.load_splits(missing).items() if missing else ():
            if split == "train" and not any(len(source.objects(i)[0]) for i in range(len(source))):
                raise DataError("no object in any training image: there is nothing to learn")
            self._datasets[split] = DetectionDataset(
                source, self.image_size, cache=self.cache_images, channels=self.channels
            )

    def _evaluation_loader(self, split: str, persistent: bool = False) -> DataLoader[Batch]:
        return self.evaluation_loader(self.dataset(split), collate, persistent)

    def _mosaic_ends(self) -> int | None:
        epochs = self.trainer.max_epochs if self.trainer is not None else None
        if epochs is None or epochs < 0:
            return None
        return max(0, epochs - self.close_mosaic)
