"""What the DataModules share: a training loader that continues where it stopped, and ranks."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_prune.arguments import Count, NonNegative, Workers
from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.sampler import PermutationSampler, ShardSampler
from lightning_prune.validation import validated


class ResumableDataModule(L.LightningDataModule):
    """Base of the DataModules: makes their loaders.

    The training order depends on (seed, epoch) alone, and the training loader continues in the
    middle of an epoch after a resume. Ranks of a distributed run share the samples by themselves;
    Lightning adds no sampler of its own.

    Args:
        batch_size: Samples per batch and process.
        num_workers: Worker processes per loader, at most 512; 0 loads in the main process.
        seed: Of the order.

    Raises:
        ValueError: an argument is of the wrong type or out of range.
    """

    @validated
    def __init__(self, batch_size: Count, num_workers: Workers, seed: NonNegative) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def training_loader(
        self, dataset: Dataset[Any], collate: Callable[[Any], Any]
    ) -> ResumableLoader:
        """Load samples in a random order that a checkpoint can restore."""
        rank, world_size = self._place()
        sampler = PermutationSampler(dataset, self.seed, rank, world_size)
        if self.trainer is not None:
            # Lightning makes the first iterator of a resumed run before it sets the epoch, and
            # gives the loader's state back only for checkpoints from within an epoch. `processed`
            # is the number it sets later; `current_epoch` is one behind after an epoch's end
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(int(progress.processed))
        return ResumableLoader(
            dataset,
            sampler=sampler,
            progress=self._completed_batches,
            batch_size=self.batch_size,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def evaluation_loader(
        self, dataset: Dataset[Any], collate: Callable[[Any], Any], persistent: bool = False
    ) -> DataLoader[Any]:
        """Load every sample exactly once, in order, split over ranks."""
        # a generator of its own keeps the global random state as it is
        return DataLoader(
            dataset,
            sampler=ShardSampler(dataset, *self._place()),
            batch_size=self.batch_size,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=persistent and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def _place(self) -> tuple[int | None, int | None]:
        if self.trainer is None:
            return None, None
        return self.trainer.global_rank, self.trainer.world_size

    def _completed_batches(self) -> int | None:
        if self.trainer is None:
            return None
        # `processed` counts optimizer steps that are done; a batch in the middle of its step is not
        current: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        done = int(current.processed)
        return -1 if done >= self.trainer.num_training_batches else done
