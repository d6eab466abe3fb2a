"""What was recorded in one session, as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from lightning_prune.neural.data.array_file import FileArray


@dataclass(frozen=True, eq=False)
class NeuralSession:
    """T frames, N cells.

    Attributes:
        name: Says which session it is, in messages; the path of a file.
        stimulus: (T, H, W) uint8 or floating point, in memory or in a file.
        spikes: (T, N) counts.
        behavior: (T, D) numbers.
        valid: (T, N) bool, False where a count is not to be used.
        trial: (T,) integers; a trial ends where they change.
        frame_rate: Frames per second, Hz.
        labels: For each label set (T,) integers, classes; -1: none.
        label_names: For each label set the names of its classes.
        rate: (T, N) true expected counts per frame, or None.
        repeat: (T,) integers, the same number where the same stimulus was shown again, -1
            elsewhere; or None.
        movie_range: Smallest and largest value of a floating-point `stimulus`, as a check found
            them; None: not known, or uint8.
    """

    name: str
    stimulus: np.ndarray | FileArray
    spikes: np.ndarray
    behavior: np.ndarray
    valid: np.ndarray
    trial: np.ndarray
    frame_rate: float
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    label_names: dict[str, list[str]] = field(default_factory=dict)
    rate: np.ndarray | None = None
    repeat: np.ndarray | None = None
    movie_range: tuple[float, float] | None = None

    @property
    def cells(self) -> int:
        """Return the number of cells, N."""
        return int(self.spikes.shape[1])

    def __len__(self) -> int:
        """Count the frames, T."""
        return len(self.spikes)

    def with_cells(self, kept: np.ndarray) -> "NeuralSession":
        """Return the same session with some of its cells.

        Args:
            kept: (N,) bool or indices.
        """
        return replace(
            self,
            spikes=self.spikes[:, kept],
            valid=self.valid[:, kept],
            rate=None if self.rate is None else self.rate[:, kept],
        )

    def arrays(self) -> Iterator[np.ndarray]:
        """Go through the arrays that are in memory."""
        each: list[np.ndarray | FileArray | None] = [self.stimulus, self.spikes, self.behavior]
        each += [self.valid, self.trial, *self.labels.values(), self.rate, self.repeat]
        yield from (array for array in each if isinstance(array, np.ndarray))
