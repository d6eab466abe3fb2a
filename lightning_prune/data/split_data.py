"""DataModules of images in training, validation and test splits: their loaders."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lightning_prune.arguments import Count, NonNegative, Workers
from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.resumable_data import ResumableDataModule

_SPLITS_OF_STAGE = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}


class SplitDataModule(ResumableDataModule):
    """Base of DataModules whose samples are in the splits "train", "val" and perhaps "test".

    Training samples are varied, those of validation, test and collection are not; without a test
    split the test is on validation samples. A split is loaded and checked once, when it is needed.

    Args:
        batch_size: Samples per batch and process.
        num_workers: Worker processes per loader; 0 loads in the main process.
        seed: Of the order and the variation.
    """

    def __init__(self, batch_size: Count, num_workers: Workers, seed: NonNegative) -> None:
        super().__init__(batch_size, num_workers, seed)
        self._datasets: dict[str, Dataset[Any]] = {}

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Return which of "train", "val" and "test" exist."""

    @property
    @abstractmethod
    def collate(self) -> Callable[[Any], Any]:
        """Return what makes a batch of samples."""

    @abstractmethod
    def load_datasets(self, splits: Sequence[str]) -> Mapping[str, Dataset[Any]]:
        """Load and check some splits, as in evaluation.

        Raises:
            DataError: the data cannot be trained on.
        """

    @abstractmethod
    def training_dataset(self) -> Dataset[Any]:
        """Return the training samples, varied."""

    def setup(self, stage: str) -> None:
        """Load and check what a stage needs, once."""
        self._require(_SPLITS_OF_STAGE[stage])

    def dataset(self, split: str) -> Any:
        """Return a split as in evaluation, loading it if need be."""
        self._require([split])
        return self._datasets[self._existing(split)]

    def train_dataloader(self) -> ResumableLoader:
        """Return varied training samples in a random order that a checkpoint can restore."""
        return self.training_loader(self.training_dataset(), self.collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation samples, each exactly once."""
        return self.evaluation_loader(self.dataset("val"), self.collate, persistent=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test samples; those of validation where there are none."""
        if "test" not in self.splits:
            rank_zero_info("The data set has no test split: testing on the validation split.")
        return self.evaluation_loader(self.dataset("test"), self.collate)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the samples of `test_dataloader`."""
        return self.test_dataloader()

    def collection_dataloader(self) -> DataLoader[Any]:
        """Return training samples as in evaluation: not shuffled, not varied."""
        return self.evaluation_loader(self.dataset("train"), self.collate)

    def _existing(self, split: str) -> str:
        return "val" if split == "test" and "test" not in self.splits else split

    def _require(self, splits: Sequence[str]) -> None:
        wanted = dict.fromkeys(self._existing(split) for split in splits)
        missing = [split for split in wanted if split not in self._datasets]
        if missing:
            self._datasets.update(self.load_datasets(missing))
