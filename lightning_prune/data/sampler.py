"""Orders of drawing that depend on (seed, epoch) only and can start anywhere."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch.distributed as dist
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler


class Draw(NamedTuple):
    """One draw from a data set.

    Attributes:
        epoch: Epoch it is drawn in; seeds the augmentation.
        sample: Index in the data set.
    """

    epoch: int
    sample: int


def _rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    distributed = dist.is_available() and dist.is_initialized()
    if rank is None:
        rank = dist.get_rank() if distributed else 0
    if world_size is None:
        world_size = dist.get_world_size() if distributed else 1
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank} is outside [0, {world_size}): pass the rank of this process")
    return rank, world_size


class PermutationSampler(DistributedSampler[Draw]):
    """Draw every sample once per epoch, in an order seeded by (seed, epoch), sharded over ranks.

    Being a `DistributedSampler` it is left alone by Lightning, which would otherwise shard it a
    second time. Every rank draws equally many samples; where the count does not divide, the first
    ones of the order are drawn once more.

    Attributes:
        epoch: The epoch drawn next.
        start: Samples of this rank to leave out at the start of that epoch (after a resume).

    Args:
        dataset: Anything with a length.
        seed: Of the order.
        rank: Of this process; None asks torch.distributed.
        world_size: Number of processes; None asks torch.distributed.
    """

    def __init__(
        self,
        dataset: Dataset[object],
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        rank, world_size = _rank_and_world(rank, world_size)
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; a position in another epoch is forgotten."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def seek(self, epoch: int, start: int) -> None:
        """Go to sample `start` of this rank's part of an epoch."""
        if epoch < 0 or start < 0:
            raise ValueError(f"epoch={epoch}, start={start}: neither can be negative")
        self.epoch, self.start = epoch, start

    def order(self, epoch: int) -> np.ndarray:
        """Return this rank's part of the order of an epoch, (samples / ranks) indices."""
        count = len(self.dataset)  # type: ignore[arg-type]
        permutation = np.random.default_rng((self.seed, epoch)).permutation(count)
        total = -(-count // self.num_replicas) * self.num_replicas
        return np.resize(permutation, total)[self.rank :: self.num_replicas]

    def __iter__(self) -> Iterator[Draw]:
        """Draw the rest of the epoch; the next time the whole of it."""
        epoch, start = self.epoch, self.start
        self.start = 0
        return (Draw(epoch, int(index)) for index in self.order(epoch)[start:])


class ShardSampler(DistributedSampler[int]):
    """Visit every sample exactly once, in order, split over ranks.

    Unlike Lightning's choice for validation nothing is visited twice, so that a metric over several
    processes equals the metric of one. Only where there are fewer samples than ranks, ranks
    without one visit the first.
    """

    def __init__(
        self, dataset: Dataset[object], rank: int | None = None, world_size: int | None = None
    ) -> None:
        rank, world_size = _rank_and_world(rank, world_size)
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)

    def _indices(self) -> range:
        count = len(self.dataset)  # type: ignore[arg-type]
        return range(self.rank, count, self.num_replicas) or range(min(count, 1))

    def __iter__(self) -> Iterator[int]:
        """Visit this rank's samples."""
        return iter(self._indices())

    def __len__(self) -> int:
        """Count this rank's samples."""
        return len(self._indices())
