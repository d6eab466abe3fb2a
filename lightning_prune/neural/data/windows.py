"""Windows of neural recordings: the last frames of the movie, and the spikes at the end of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_prune.neural.data.array_file import FileArray
from lightning_prune.neural.data.movie_range import AS_IT_IS, GREY, MovieScale, movie_dtype
from lightning_prune.neural.data.session import NeuralSession

NeuralBatch = tuple[dict[str, Tensor], dict[str, Tensor]]
Key = int | tuple[int, int]


def window_ends(session: NeuralSession, frames: int) -> np.ndarray:
    """Find the frames at which a window may end: inside its trial, with a valid cell.

    Args:
        session: T frames.
        frames: Length of a window.

    Returns:
        (M,) int64, rising: the window covers frames t - frames + 1 to t.
    """
    place = np.arange(len(session))
    starts = np.flatnonzero(np.diff(session.trial, prepend=session.trial[:1] - 1))
    begun = starts[np.searchsorted(starts, place, side="right") - 1]
    return np.flatnonzero((place - begun >= frames - 1) & session.valid.any(axis=1))


@dataclass
class NeuralWindows(Dataset[NeuralBatch]):
    """Windows of several sessions with different cells.

    A sample is `(inputs, targets)`. Inputs: `stimulus` (1, F, H, W) float32, for uint8 movies
    (x - 127) / 255, for others as `scale` says; `behavior` (D,) float32 at the last frame;
    `session` int64. Targets, at the last frame: `spikes` (N,) float32 and `valid` (N,) bool, N the
    largest number of cells of any session, beyond a session's own cells 0 and False; where any
    session has them `rate` (N,) float32 (NaN where absent), `label` int64 and `repeat` int64 (-1
    where absent; the numbers of one session have nothing to do with those of another). Counts that
    are not valid are given as 0.

    A batch is fetched whole, with one gather a session (`__getitems__`): its samples need no
    collation.

    Attributes:
        sessions: The recordings.
        frames: F, length of a window.
        session: (M,) int64, for each window its session.
        end: (M,) int64, for each window its last frame.
        labels: The label set that `label` is taken from, or None: no label.
        turns: (P, M) int64, the last frames in the epochs 0 to P - 1, then from the first row
            again; None: `end` in all of them. Only keys with an epoch take turns.
        scale: Of floating-point movies, as `movie_scale` gives it.
    """

    sessions: Sequence[NeuralSession]
    frames: int
    session: np.ndarray
    end: np.ndarray
    labels: str | None = None
    turns: np.ndarray | None = None
    scale: MovieScale = AS_IT_IS

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.end)

    def shuffled(self, seed: int) -> "NeuralWindows":
        """Return the same windows in an order that depends on the seed only."""
        order = np.random.default_rng(seed).permutation(len(self))
        turns = None if self.turns is None else self.turns[:, order]
        return replace(self, session=self.session[order], end=self.end[order], turns=turns)

    def __getitem__(self, key: Key) -> NeuralBatch:
        """Return one sample."""
        inputs, targets = self.__getitems__([key])
        return (
            {name: value[0] for name, value in inputs.items()},
            {name: value[0] for name, value in targets.items()},
        )

    def __getitems__(self, keys: Sequence[Key]) -> NeuralBatch:
        """Return a batch: every value of a sample with a first dimension B more.

        Args:
            keys: Indices, or (epoch, index) as `PermutationSampler` draws them.
        """
        rows = np.array([key[1] if isinstance(key, tuple) else key for key in keys])
        session, end = self.session[rows], self._ends(keys, rows)
        first = self.sessions[0]
        count, cells = len(rows), max(each.cells for each in self.sessions)
        stimulus = np.empty((count, self.frames, *first.stimulus.shape[1:]), movie_dtype(first))
        behavior = np.empty((count, first.behavior.shape[1]), np.float32)
        spikes, valid = np.zeros((count, cells), np.float32), np.zeros((count, cells), bool)
        rate = np.full((count, cells), np.nan, np.float32)
        label, repeat = np.full((2, count), -1)
        for index in np.unique(session):
            source, mine = self.sessions[index], np.flatnonzero(session == index)
            last, own = end[mine], slice(source.cells)
            stimulus[mine] = _movies(source.stimulus, last, self.frames)
            behavior[mine] = source.behavior[last]
            usable = source.valid[last]
            valid[mine, own] = usable
            spikes[mine, own] = np.where(usable, source.spikes[last], 0)
            if source.rate is not None:
                rate[mine, own] = source.rate[last]
            if self.labels is not None:
                label[mine] = source.labels[self.labels][last]
            if source.repeat is not None:
                repeat[mine] = source.repeat[last]
        targets = {"spikes": torch.from_numpy(spikes), "valid": torch.from_numpy(valid)}
        if any(each.rate is not None for each in self.sessions):
            targets["rate"] = torch.from_numpy(rate)
        if self.labels is not None:
            targets["label"] = torch.from_numpy(label)
        if any(each.repeat is not None for each in self.sessions):
            targets["repeat"] = torch.from_numpy(repeat)
        return {
            "stimulus": _scaled(torch.from_numpy(stimulus), self.scale).unsqueeze(1),
            "behavior": torch.from_numpy(behavior),
            "session": torch.from_numpy(session),
        }, targets

    def _ends(self, keys: Sequence[Key], rows: np.ndarray) -> np.ndarray:
        ends: np.ndarray = self.end[rows]
        if self.turns is None:
            return ends
        epochs = np.array([key[0] if isinstance(key, tuple) else -1 for key in keys])
        return np.where(epochs < 0, ends, self.turns[epochs % len(self.turns), rows])


def _movies(stimulus: np.ndarray | FileArray, last: np.ndarray, frames: int) -> np.ndarray:
    """Cut out (B, frames, H, W), in one gather where the movie is in memory or is mapped."""
    movie = stimulus.in_memory() if isinstance(stimulus, FileArray) else stimulus
    if movie is not None:
        cut: np.ndarray = movie[last[:, None] + np.arange(1 - frames, 1)]
        return cut
    return np.stack([stimulus[end + 1 - frames : end + 1] for end in last])


def _scaled(movies: Tensor, scale: MovieScale) -> Tensor:
    offset, divisor = GREY if movies.dtype == torch.uint8 else scale
    return movies.float().sub_(offset).div_(divisor)
