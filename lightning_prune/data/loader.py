"""A DataLoader that continues in the middle of an epoch."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_prune.data.sampler import PermutationSampler

Progress = Callable[[], int | None]


class ResumableLoader(DataLoader[Any]):
    """Load batches in an order that a checkpoint can restore to the batch.

    Lightning stores `state_dict()` of every training loader that has one and gives it back before
    it asks for the first batch. What is stored is the number of *completed* batches: the loader
    itself only knows how many it handed out, which is one too many after an exception in the
    middle of a step. So it asks `progress`.

    Args:
        dataset: Map-style data set whose keys the sampler draws.
        sampler: `PermutationSampler`; any other sampler works but cannot resume inside an epoch.
        progress: Gives the number of completed batches of the current epoch, -1 when the epoch is
            complete, or None when nobody counts (then handed out batches count).
        **options: Those of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: Any = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> None:
        # its own generator: the base class draws a worker seed from the global one at every epoch,
        # and the model's dropout would depend on how often somebody iterated
        options.setdefault("generator", torch.Generator())
        super().__init__(dataset, sampler=sampler, **options)
        self.progress = progress
        self._handed_out = 0
        self._first = 0
        self._open_epoch: int | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the rest of the epoch that the sampler is in."""
        if isinstance(self.sampler, PermutationSampler):
            self._open_epoch = self.sampler.epoch
            self._handed_out = self._first = self.sampler.start // self._batch_size
        return self._count(super().__iter__())

    def _count(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._handed_out += 1
            yield batch

    @property
    def _batch_size(self) -> int:
        assert self.batch_size is not None
        return self.batch_size

    def position(self) -> tuple[int, int]:
        """Return the epoch and the number of completed batches in it."""
        sampler = self.sampler
        if not isinstance(sampler, PermutationSampler):
            return 0, 0
        counted = self.progress() if self.progress is not None else None
        opened = -1 if self._open_epoch is None else self._open_epoch
        if counted == -1 and opened >= sampler.epoch and self._handed_out == self._first:
            # After a resume at the end of an epoch the next one is open already, while the progress
            # and perhaps the announced epoch are still those of the one that is complete.
            return opened, self._first
        if opened != sampler.epoch:
            # the epoch has been announced, its first batch not been asked for
            return sampler.epoch, sampler.start // self._batch_size
        completed = self._handed_out if counted is None else counted
        if completed < 0 or completed >= len(self):
            return sampler.epoch + 1, 0
        return sampler.epoch, completed

    def state_dict(self) -> dict[str, int]:
        """Return the position and what it depends on, as plain numbers."""
        epoch, batch = self.position()
        return {"epoch": epoch, "batch": batch, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a stored position.

        A position counted with another batch size, number of samples, number of processes or seed
        belongs to another order: the epoch then starts at its first sample, with a warning.
        """
        if not isinstance(self.sampler, PermutationSampler):
            return
        changed = {
            name: (state.get(name), value)
            for name, value in self._identity().items()
            if state.get(name) != value
        }
        batch = state["batch"]
        if changed and batch:
            differences = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
            warnings.warn(
                f"The checkpoint was written after batch {batch} of epoch {state['epoch'] + 1} "
                f"over other data ({differences}): the order of samples starts again.",
                stacklevel=2,
            )
            batch = 0
        self._open_epoch = None
        self.sampler.seek(state["epoch"], batch * self._batch_size)

    def _identity(self) -> dict[str, int]:
        sampler = self.sampler
        if not isinstance(sampler, PermutationSampler):
            return {}
        return {
            "batch_size": self._batch_size,
            "pictures": len(self.dataset),  # type: ignore[arg-type]
            "world_size": sampler.num_replicas,
            "seed": sampler.seed,
        }
